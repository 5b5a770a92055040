//! See the module of that name in the design; filled by its own change.

fn main() {}
