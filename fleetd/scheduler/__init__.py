"""Where a unit goes: feasible -> rank -> choose, on indices that follow each change. Pure; nothing here does I/O."""
