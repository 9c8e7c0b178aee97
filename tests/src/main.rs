//! `vfio-user-check`: see `vfio-user-check --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    vfio_user_check::cli::main()
}
