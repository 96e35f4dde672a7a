//! The settings, gathered from the folders that obey them.
