//! What a model needs and what it gives: manifests, the folder they live in, and tensors. No
//! runtime and no DICOM here.

pub mod chain;
pub mod flip;
pub mod manifest;
pub mod placement;
pub mod repository;
pub mod selection;
pub mod tensor;
pub mod volume;

pub use manifest::{ImageSpec, InputSpec, Manifest, OutputSpec, VolumeSpec};
pub use placement::{ImagePlacement, Line, Placement, SourcePlane, VolumePlacement};
pub use repository::{ModelError, ModelId, Package};
pub use tensor::{Tensor, TensorData};
