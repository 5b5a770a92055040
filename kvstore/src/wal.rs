//! Segments, CRC and recovery; pure over a disk trait.
