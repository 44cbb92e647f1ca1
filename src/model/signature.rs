//! Detached minisign signatures of manifests (<https://jedisct1.github.io/minisign/>).
//!
//! `model.toml.minisig` signs the bytes of `model.toml`. The manifest holds the digests of its graphs,
//! so a signed manifest signs them too.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use minisign_verify::{PublicKey, Signature as Minisig};

/// A signature file has four short lines.
const MAX_BYTES: u64 = 4096;

/// What is known of the origin of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// One of the trusted keys has signed it.
    Verified,
    /// There is a signature, and no trusted key to hold it against.
    Unchecked,
    /// There is no signature.
    Absent,
}

impl Signature {
    /// The word in tables and the HTTP API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unchecked => "unchecked",
            Self::Absent => "none",
        }
    }
}

/// Who may sign manifests, and whether somebody must.
#[derive(Clone, Default)]
pub struct Trust {
    keys: Vec<PublicKey>,
    required: bool,
}

impl Trust {
    /// From public keys as `minisign -G` prints them: the line that begins with `RW`.
    ///
    /// # Errors
    /// A line that is no key, or a required signature without a key.
    pub fn new(keys: &[String], required: bool) -> Result<Self, String> {
        let keys: Vec<PublicKey> = keys
            .iter()
            .map(|line| {
                PublicKey::from_base64(line.trim()).map_err(|err| {
                    format!("models.trusted_keys: `{line}` is no minisign public key: {err}")
                })
            })
            .collect::<Result<_, _>>()?;
        if required && keys.is_empty() {
            return Err("models.require_signature: needs a key in models.trusted_keys".to_owned());
        }
        Ok(Self { keys, required })
    }

    /// Holds `bytes`, the content of `path`, against the signature beside it.
    ///
    /// # Errors
    /// A signature that is required and absent, or that no trusted key has made.
    pub fn check(&self, path: &Path, bytes: &[u8]) -> Result<Signature, String> {
        let mut name = path.as_os_str().to_owned();
        name.push(".minisig");
        let file = Path::new(&name);
        let text = match read(file) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return match self.required {
                    true => Err(format!(
                        "signature: {} is missing, and models.require_signature is set",
                        file.display()
                    )),
                    false => Ok(Signature::Absent),
                };
            }
            Err(err) => return Err(format!("signature: cannot read {}: {err}", file.display())),
        };
        if self.keys.is_empty() {
            return Ok(Signature::Unchecked);
        }
        let signature = Minisig::decode(&text)
            .map_err(|err| format!("signature: {} is no signature: {err}", file.display()))?;
        // Legacy signatures are over the text itself and not over its hash; both are sound.
        let mut reason = String::new();
        for key in &self.keys {
            match key.verify(bytes, &signature, true) {
                Ok(()) => return Ok(Signature::Verified),
                // A key that signed it and does not fit says more than one that did not.
                Err(minisign_verify::Error::UnexpectedKeyId) if !reason.is_empty() => {}
                Err(minisign_verify::Error::UnexpectedKeyId) => {
                    reason = "none of models.trusted_keys has made it".to_owned();
                }
                Err(err) => reason = format!("it does not fit the manifest: {err}"),
            }
        }
        Err(format!("signature: {}: {reason}", file.display()))
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?
        .take(MAX_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}
