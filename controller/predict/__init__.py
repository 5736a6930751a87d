"""What will the uplink carry, and when will each candidate be answered?"""
