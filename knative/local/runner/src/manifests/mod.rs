//! Manifests in kustomize form, rendered.
//!
//! [`render`] does what `kustomize build` does, for the part of it that our manifests use:
//! resources, components, ConfigMaps and Secrets from files and literals, patches, the
//! namespace, labels and images. A field of a kustomization that is not among these is a
//! mistake that names it; nothing is passed over. Where kustomize is lenient about what can
//! only be an error (a patch that selects nothing, an image that nobody uses), it is a mistake.

mod build;
mod generate;
mod kustomization;
mod merge;
mod object;
mod patch;
mod resource;
#[cfg(test)]
mod tests;
mod transform;

pub use build::render;
pub use object::{Mistake, Object};
