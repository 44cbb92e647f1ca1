//! What a model needs and what it gives: manifests, the folder they live in, and tensors. No
//! runtime and no DICOM here.

pub mod manifest;
pub mod placement;
pub mod prepared;
pub mod repository;
pub mod selection;
pub mod tensor;
pub mod volume;

pub use manifest::{ImageSpec, InputSpec, Manifest, OutputSpec, VolumeSpec};
pub use placement::{ImagePlacement, Placement};
pub use prepared::Prepared;
pub use repository::{ModelError, ModelId, Package};
pub use tensor::{Tensor, TensorData};
