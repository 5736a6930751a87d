"""Words that stand on the rendered goods. All names are made up."""

from __future__ import annotations

NAMES = (
    *("Alpenrose", "Borealis", "Cascade", "Delphin", "Evergreen", "Falkner", "Granit", "Harvest", "Iskra", "Juniper"),
    *("Kestrel", "Lumen", "Meridian", "Nordwind", "Orchard", "Pionier", "Quarz", "Riverside", "Solaris", "Tundra"),
    *("Umbra", "Vulkan", "Willow", "Xenon", "Yarrow", "Zephyr", "Müller", "Förster", "Citron", "Mokka", "Paprika"),
    *("Bolt", "Filter", "Gasket", "Bearing", "Lamp", "Tea", "Coffee", "Flour", "Soap", "Vinegar", "Honey", "Oats"),
    *("Ginger", "Sesame", "Mint", "Salt", "Varnish", "Solvent", "Battery", "Cable", "Valve", "Relay", "Sensor"),
)
PHRASES = (
    *("FRAGILE", "THIS SIDE UP", "HANDLE WITH CARE", "KEEP DRY", "DO NOT STACK", "Made in Austria", "Made in Portugal"),
    *("HEAVY", "Store below 25 °C", "Keep frozen", "SAMPLE", "Not for sale", "PRIORITY", "RETURN", "INSPECTED", "OK"),
    *("Shake well before use", "Open here", "Refill", "NEW", "ORGANIC", "Recycle", "QC PASSED", "Batch tested"),
)
NOTES = (
    *("Hauptstrasse 14", "8020 Graz", "Rua do Ouro 210", "Harbour Road 7", "Dock 12 / Gate B", "Unit 5, Mill Lane"),
    *("www.example.com", "info@example.org", "Tel. 0555 010 199", "Ship to: Store 88", "Carton 3 of 12", "Zone A-17"),
    *("Ingredients: water, salt", "Contains nuts", "Voltage 230 V", "12 V  2.5 A", "Class II", "Size 42", "pH 5.5"),
)
UNITS = ("g", "kg", "ml", "l", "pcs")
