//! The binary: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    // ONNX Runtime 1.30 and newer report usage unless this is set before the library is loaded. No
    // thread runs yet, so nobody reads the environment meanwhile.
    // SAFETY: see above; this is the first statement of `main`.
    #[allow(unsafe_code, clippy::disallowed_methods)]
    unsafe {
        std::env::set_var("ORT_DISABLE_TELEMETRY", "1");
    }
    pacs_gateway::cli::main()
}
