//! Where a channel's messages and what is made of them are kept.
