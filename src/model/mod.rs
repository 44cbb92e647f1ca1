//! What a model needs and what it gives: manifests, the folder they live in, and tensors. No
//! runtime and no DICOM here.

pub mod chain;
pub mod flip;
pub mod manifest;
pub mod placement;
pub mod prepared;
pub mod repository;
pub mod roles;
pub mod selection;
pub mod signature;
pub mod tensor;
pub mod volume;

pub use manifest::{ImageSpec, InputSpec, Manifest, OutputSpec, VolumeSpec};
pub use placement::{ImagePlacement, Line, Placement, SourcePlane, VolumePlacement};
pub use prepared::Prepared;
pub use repository::{Installed, ModelError, ModelId, Package};
pub use roles::{Role, Roles};
pub use signature::{Signature, Trust};
pub use tensor::{Tensor, TensorData};
