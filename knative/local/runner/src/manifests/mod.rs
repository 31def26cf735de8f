//! Manifests in kustomize form, rendered.

mod object;

pub use object::{Mistake, Object};
