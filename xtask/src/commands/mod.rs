//! One module per command.

pub mod bench;
pub mod cluster;
pub mod control_plane;
