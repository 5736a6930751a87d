"""The configuration tree: every setting of ``mecpilot device`` and ``mecpilot mec``, with its default and its meaning.

A section of the tree is a table of ``mecpilot.toml``; a field is a key of that table and one command-line flag. The
sentence of a field is the comment in the file and the help of the flag, and it names the unit. Limits stand in the
type. Nothing here depends on another room, so that every room may import it.
"""

from __future__ import annotations

from runtime.config.sections.admission import AdmissionSection
from runtime.config.sections.deploy import DeploySection
from runtime.config.sections.device import (
    ControllerSection,
    DeviceSection,
    EmulationSection,
    LimitsSection,
    ObjectiveSection,
    OutputsSection,
    PrivacySection,
    SourceSection,
)
from runtime.config.sections.fields import Section
from runtime.config.sections.mec import MecSection
from runtime.config.sections.security import SecuritySection
from runtime.config.sections.shortcuts import CacheSection, FilterSection
from runtime.config.sections.workload import WorkloadSection


class Config(Section, frozen=True):
    """The whole tree. Every part has its defaults."""

    workload: WorkloadSection = WorkloadSection()
    controller: ControllerSection = ControllerSection()
    source: SourceSection = SourceSection()
    device: DeviceSection = DeviceSection()
    limits: LimitsSection = LimitsSection()
    security: SecuritySection = SecuritySection()
    privacy: PrivacySection = PrivacySection()
    filter: FilterSection = FilterSection()
    objective: ObjectiveSection = ObjectiveSection()
    emulation: EmulationSection = EmulationSection()
    cache: CacheSection = CacheSection()
    outputs: OutputsSection = OutputsSection()
    mec: MecSection = MecSection()
    admission: AdmissionSection = AdmissionSection()
    deploy: DeploySection = DeploySection()


#: What holds where nothing else is said.
DEFAULTS = Config()
#: The tables that each command reads, in the order of its help.
DEVICE_SECTIONS = tuple(name for name in Config.__struct_fields__ if name not in ("mec", "admission", "deploy"))
MEC_SECTIONS = ("workload", "security", "mec", "admission", "deploy")
