//! The title page: hand the command line to [`pillarbox::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    pillarbox::cli::main()
}
