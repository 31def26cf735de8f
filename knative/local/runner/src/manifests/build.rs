//! Folder by folder: what a kustomization takes in, makes and changes, in kustomize's order.

use std::path::{Component, Path, PathBuf};

use super::{
    Mistake, Object,
    generate::{self, generate},
    kustomization::{Generator, Kind, Kustomization},
    patch,
    resource::{Resource, documents, tidy},
    transform,
};

/// Renders a folder with a `kustomization.yaml`, or lists everything that is wrong with it.
///
/// Objects come in the order in which they are written.
pub fn render(folder: &Path) -> Result<Vec<Object>, Vec<Mistake>> {
    let mut build = Build::default();
    let mut resources = Vec::new();
    build.folder(&tidy(folder), Kind::Kustomization, &mut resources);
    if build.mistakes.is_empty() {
        return Ok(resources.into_iter().map(|it| it.object).collect());
    }
    build.mistakes.sort();
    build.mistakes.dedup();
    Err(build.mistakes)
}

#[derive(Default)]
struct Build {
    mistakes: Vec<Mistake>,
    /// The folders that are being read, each named by the one before.
    within: Vec<PathBuf>,
}

impl Build {
    /// Adds what a folder holds to `resources`, and does to all of them what it says.
    fn folder(&mut self, folder: &Path, kind: Kind, resources: &mut Vec<Resource>) {
        let file = folder.join("kustomization.yaml");
        let place = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        if self.within.contains(&place) {
            return self.wrong(&file, "resources", "the folder names itself");
        }
        let Some(kustomization) = Kustomization::read(&file, &mut self.mistakes) else {
            return;
        };
        if kustomization.kind != kind {
            let why = format!("must be {kind:?} where it is used");
            return self.wrong(&file, "kind", why);
        }
        self.within.push(place);
        self.take_in(folder, &kustomization, resources);
        self.within.pop();
        self.generate(folder, &kustomization, resources);
        self.change(folder, &kustomization, resources);
    }

    fn take_in(&mut self, folder: &Path, from: &Kustomization, resources: &mut Vec<Resource>) {
        let file = folder.join("kustomization.yaml");
        for path in &from.resources {
            let full = tidy(&folder.join(path));
            let mut new = Vec::new();
            if Path::new(path).is_absolute() {
                self.wrong(&file, "resources", format!("{path} must be relative"));
            } else if full.is_dir() {
                self.folder(&full, Kind::Kustomization, &mut new);
            } else if let Err(why) = inside(path) {
                self.wrong(&file, "resources", why);
            } else {
                match documents(&full) {
                    Ok(documents) => {
                        for document in documents {
                            match Resource::new(document, &full) {
                                Ok(resource) => new.push(resource),
                                Err(mistake) => self.mistakes.push(mistake),
                            }
                        }
                    }
                    Err(mistake) => self.mistakes.push(mistake),
                }
            }
            for resource in new {
                self.add(resource, resources);
            }
        }
        for path in &from.components {
            if Path::new(path).is_absolute() {
                self.wrong(&file, "components", format!("{path} must be relative"));
            } else {
                self.folder(&tidy(&folder.join(path)), Kind::Component, resources);
            }
        }
    }

    fn generate(&mut self, folder: &Path, from: &Kustomization, resources: &mut Vec<Resource>) {
        let file = folder.join("kustomization.yaml");
        let all = (from.config_map_generator.iter())
            .map(|it| (generate::Kind::ConfigMap, "configMapGenerator", it))
            .chain(
                (from.secret_generator.iter())
                    .map(|it| (generate::Kind::Secret, "secretGenerator", it)),
            );
        let mut hashed = false;
        for (kind, field, generator) in all {
            hashed |= !from.generator_options.disable_name_suffix_hash;
            let made = generate(kind, generator, |path| read(folder, path))
                .map_err(|why| Mistake::in_file(&file, generator_field(field, generator), why))
                .and_then(|value| Resource::new(value, &file));
            match made {
                Ok(resource) => self.add(resource, resources),
                Err(mistake) => self.mistakes.push(mistake),
            }
        }
        if hashed {
            let field = "generatorOptions.disableNameSuffixHash";
            self.wrong(&file, field, "must be true: names are not hashed here");
        }
    }

    fn change(&mut self, folder: &Path, from: &Kustomization, resources: &mut Vec<Resource>) {
        let file = folder.join("kustomization.yaml");
        for patch in &from.patches {
            let text = match (&patch.patch, &patch.path) {
                (Some(text), None) => Ok(text.clone()),
                (None, Some(path)) => read(folder, path).and_then(|bytes| {
                    String::from_utf8(bytes).map_err(|_| format!("{path} is no UTF-8"))
                }),
                _ => Err("a patch has one of patch and path".to_owned()),
            };
            match text {
                Ok(text) => patch::apply(resources, patch, &text, &file, &mut self.mistakes),
                Err(why) => self.wrong(&file, "patches", why),
            }
        }
        if let Some(namespace) = &from.namespace {
            for resource in resources.iter_mut() {
                resource.move_to(namespace);
            }
        }
        for labels in &from.labels {
            for resource in resources.iter_mut() {
                transform::label(&mut resource.object.value, &labels.pairs);
            }
        }
        for image in &from.images {
            let mut found = false;
            for resource in resources.iter_mut() {
                found |= transform::image(&mut resource.object.value, image);
            }
            if !found {
                let why = format!("no container has the image {}", image.name);
                self.wrong(&file, "images", why);
            }
        }
    }

    fn add(&mut self, resource: Resource, resources: &mut Vec<Resource>) {
        match resources.iter().find(|it| it.is(&resource)) {
            Some(there) => {
                let why = format!("is there already: {}", there.object);
                self.mistakes
                    .push(resource.object.mistake("metadata.name", why));
            }
            None => resources.push(resource),
        }
    }

    fn wrong(&mut self, file: &Path, field: &str, why: impl ToString) {
        self.mistakes.push(Mistake::in_file(file, field, why));
    }
}

fn generator_field(field: &str, generator: &Generator) -> String {
    format!("{field}.{}", generator.name)
}

/// Reads a file that a kustomization names.
fn read(folder: &Path, path: &str) -> Result<Vec<u8>, String> {
    inside(path)?;
    std::fs::read(folder.join(path)).map_err(|error| format!("{path}: {error}"))
}

/// Refuses a file outside the kustomization's folder, as kustomize does.
fn inside(path: &str) -> Result<(), String> {
    match tidy(Path::new(path)).components().next() {
        Some(Component::Normal(_)) => Ok(()),
        _ => Err(format!("{path} must be in the kustomization's folder")),
    }
}
