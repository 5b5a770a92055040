//! Holds one unit process or container.

fn main() {}
