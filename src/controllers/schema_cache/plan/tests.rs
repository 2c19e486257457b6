//! Tables for `plan`: one rule a case.
