//! Arguments in, exit code out.

fn main() -> std::process::ExitCode {
    patgate::cli::run(std::env::args_os())
}
