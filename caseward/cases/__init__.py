"""Cases: the only way to read or change one."""
