//! Arguments in, exit code out.

/// A request takes some fifty small allocations. The one of the C library spends a tenth of the processor time of a small GET
/// on them, this one a third of that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    patgate::cli::run(std::env::args_os())
}
