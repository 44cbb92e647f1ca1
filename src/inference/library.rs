//! ONNX Runtime's shared library: the gateway finds it, a worker checks its version and loads it.
//!
//! Loading at run time lets one binary serve CPU and GPU builds of the library, and lets the gateway
//! say what is missing instead of failing in the dynamic linker. The gateway itself never loads it.

use std::ffi::CStr;
use std::path::{Path, PathBuf};

use ort::environment::Environment;

/// Oldest library that is safe: 1.22 passes ort's own check and then aborts the process.
const OLDEST: (u32, u32) = (1, 23);

/// For the system's loader.
const SYSTEM: &str = "libonnxruntime.so";

/// The library is absent, too old or broken.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum LibraryError {
    /// Nothing was found.
    #[error(
        "ONNX Runtime was not found (looked at {looked_at}); run `make setup`, or install the Python \
         package onnxruntime 1.28.0 and set `inference.onnxruntime` to its libonnxruntime.so"
    )]
    Absent {
        /// Where we looked.
        looked_at: String,
    },
    /// The library is older than we can use.
    #[error(
        "{} is ONNX Runtime {found}; {}.{} or newer is needed (1.28.0 is tested)",
        path.display(), OLDEST.0, OLDEST.1
    )]
    TooOld {
        /// The library.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// The file is no usable library.
    #[error("{} cannot be loaded: {reason}", path.display())]
    Broken {
        /// The library.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
}

/// Loads the library at `path`, which [`find`] has given, for the whole process: ONNX Runtime allows
/// one environment. Also gives its version, for example `1.28.0`.
///
/// # Errors
/// See [`LibraryError`].
pub(super) fn load(path: &Path) -> Result<(Environment, String), LibraryError> {
    let broken = |reason: String| LibraryError::Broken {
        path: path.to_owned(),
        reason,
    };
    let version = match version(path) {
        Ok(version) => version,
        // The last place to look at was the system's loader.
        Err(_) if path == Path::new(SYSTEM) => {
            return Err(LibraryError::Absent {
                looked_at: "`inference.onnxruntime`, ORT_DYLIB_PATH, the binary's folder and the \
                            system's library path"
                    .to_owned(),
            });
        }
        Err(reason) => return Err(broken(reason)),
    };
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < OLDEST {
        return Err(LibraryError::TooOld {
            path: path.to_owned(),
            found: version,
        });
    }
    let environment = ort::init_from(path)
        .map_err(|err| broken(err.to_string()))?
        .with_telemetry(false)
        .build()
        .map_err(|err| broken(err.to_string()))?;
    Ok((environment, version))
}

/// Where the library is: as the configuration says, as `ORT_DYLIB_PATH` says, beside the binary or
/// wherever the system's loader finds it, in that order.
///
/// # Errors
/// When a path that somebody named leads nowhere.
pub(super) fn find(configured: &Path) -> Result<PathBuf, LibraryError> {
    // A path that somebody named is the one meant: no search goes on behind a misspelt one.
    let named = [
        Some(configured.to_owned()),
        std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from),
    ];
    let named = named
        .into_iter()
        .flatten()
        .find(|path| !path.as_os_str().is_empty());
    if let Some(path) = named {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(LibraryError::Absent {
                looked_at: path.display().to_string(),
            })
        };
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_owned))
        .map(|dir| {
            [
                dir.join("libonnxruntime.so"),
                dir.join("lib/libonnxruntime.so"),
            ]
        });
    for path in beside.iter().flatten() {
        if path.is_file() {
            return Ok(path.clone());
        }
    }
    Ok(PathBuf::from(SYSTEM))
}

/// Asks the library for its version before ort touches it: ort accepts versions that then abort.
#[allow(unsafe_code)]
fn version(path: &Path) -> Result<String, String> {
    // SAFETY: loading runs the library's initialisers; the operator chose the file, and ort is about
    // to load the very same one.
    let library = unsafe { libloading::Library::new(path) }.map_err(|err| err.to_string())?;
    // SAFETY: `OrtGetApiBase` has had this signature since the first release with a C API.
    let base = unsafe {
        library.get::<unsafe extern "system" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase")
    }
    .map_err(|_| "it does not export OrtGetApiBase".to_owned())?;
    // SAFETY: the function takes nothing and returns a pointer to a static, or null.
    let base = unsafe { base().as_ref() }.ok_or("it has no API")?;
    // SAFETY: the version is a static NUL-terminated string owned by the library, which is alive.
    let version = unsafe { CStr::from_ptr((base.GetVersionString)()) };
    let version = version.to_string_lossy().into_owned();
    // Unloading could run destructors that the second load does not expect; keep it mapped.
    std::mem::forget(library);
    Ok(version)
}
