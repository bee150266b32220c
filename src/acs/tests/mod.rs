//! Checks of the pages about tasks and reasons.

mod documented;
