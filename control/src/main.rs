//! The `ockam` binary: the command line, and by hidden subcommands the control process and the engine of a node.
#![forbid(unsafe_code)]

/// Small messages make many small allocations; the engine has its own memory for frames.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    ockam::cli::main()
}
