//! One module per command.

pub mod cluster;
pub mod control_plane;
