//! What a pod is made of: a program, its environment, the files that it mounts, its probes.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::manifests::{Mistake, Object};

use super::{
    configuration::{Configuration, Entries, Map},
    probe::Probe,
    spec::{Container, KeyRef, PodSpec, ValueFrom, Variable, Variables, Volume},
};

/// Set by the platform; Knative refuses manifests that set them.
const RESERVED: [&str; 4] = ["PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"];

/// A pod's template, with every reference looked up.
#[derive(Clone, Debug)]
pub(super) struct Template {
    /// Name of the program: that of the image, or of the command.
    pub(super) program: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    /// Files to write, by the path at which the container sees their folder.
    mounts: BTreeMap<PathBuf, Entries>,
    /// When the pod may have requests; nothing for at once.
    pub(super) readiness: Option<Probe>,
    /// When it must be started anew.
    pub(super) liveness: Option<Probe>,
    /// How long it has between SIGTERM and SIGKILL.
    pub(super) grace: Duration,
}

impl Template {
    /// Reads the one container of `spec`, whose owner is `object`.
    pub(super) fn read(
        object: &Object,
        spec: &PodSpec,
        configuration: &Configuration,
        grace: Duration,
    ) -> Result<Self, Vec<Mistake>> {
        let [container] = &spec.containers;
        let mut reading = Reading {
            object,
            configuration,
            mistakes: Vec::new(),
        };
        let env = reading.env(container);
        let mounts = reading.mounts(container, &spec.volumes);
        let readiness = reading.probe("readinessProbe", container.readiness_probe.as_ref());
        let liveness = reading.probe("livenessProbe", container.liveness_probe.as_ref());
        if container
            .ports
            .iter()
            .any(|port| port.name.as_deref() == Some("h2c"))
        {
            reading.mistake(
                "ports",
                "h2c is not supported here: the functions speak HTTP/1.1",
            );
        }
        if !reading.mistakes.is_empty() {
            return Err(reading.mistakes);
        }
        let mut command = container.command.iter();
        let program = match command.next() {
            Some(path) => path.rsplit('/').next().unwrap_or(path),
            None => image_name(&container.image),
        };
        Ok(Self {
            program: program.to_owned(),
            args: command.chain(&container.args).cloned().collect(),
            env,
            mounts,
            readiness,
            liveness,
            grace,
        })
    }

    /// Writes the mounted files under `folder`, and has the environment and the arguments name
    /// them there: on one machine nobody else may own `/etc/openmeter`.
    pub(super) fn install(mut self, folder: &Path) -> io::Result<Self> {
        self.write(folder)?;
        let moved = |text: &String| match self.mount_of(text) {
            Some(path) => under(folder, path).display().to_string(),
            None => text.clone(),
        };
        let args = self.args.iter().map(moved).collect();
        let env = self
            .env
            .iter()
            .map(|(name, value)| (name.clone(), moved(value)));
        let env = env.collect();
        (self.args, self.env) = (args, env);
        Ok(self)
    }

    /// Writes the mounted files. A program that reads one meanwhile reads the old or the new.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        for (path, entries) in &self.mounts {
            let folder = under(folder, path);
            fs::create_dir_all(&folder)?;
            for (name, value) in entries {
                // A leading dot, as the kubelet's own are named: nobody takes it for an entry.
                let new = folder.join(format!(".{name}.new"));
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&new)?;
                io::Write::write_all(&mut file, value)?;
                fs::rename(new, folder.join(name))?;
            }
            for old in fs::read_dir(&folder)? {
                let old = old?;
                if old
                    .file_name()
                    .to_str()
                    .is_none_or(|name| !entries.contains_key(name))
                {
                    fs::remove_file(old.path())?;
                }
            }
        }
        Ok(())
    }

    /// Returns `text` as a path, if it is one of a mounted folder or of something in it.
    fn mount_of<'a>(&self, text: &'a str) -> Option<&'a Path> {
        let path = Path::new(text);
        let mounted = self.mounts.keys().any(|mount| path.starts_with(mount));
        mounted.then_some(path)
    }
}

/// Returns where the container's absolute `path` is, below `folder`.
fn under(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path.strip_prefix("/").unwrap_or(path))
}

/// Returns `process` for `ghcr.io/openmeter/process:0.1.0@sha256:...`.
fn image_name(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split(':').next().unwrap_or(name)
}

/// Looks references up and collects what is wrong.
struct Reading<'a> {
    object: &'a Object,
    configuration: &'a Configuration,
    mistakes: Vec<Mistake>,
}

impl Reading<'_> {
    fn mistake(&mut self, field: &str, why: impl Into<String>) {
        let field = format!("spec.template.spec.containers[0].{field}");
        self.mistakes.push(self.object.mistake(field, why));
    }

    /// `envFrom` first, as what `env` says is stronger.
    fn env(&mut self, container: &Container) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for (index, variables) in container.env_from.iter().enumerate() {
            for (name, value) in self.variables(&format!("envFrom[{index}]"), variables) {
                env.insert(name, value);
            }
        }
        for variable in &container.env {
            let field = format!("env[{}]", variable.name);
            if RESERVED.contains(&variable.name.as_str()) {
                self.mistake(&field, "is set by the platform");
            }
            if let Some(value) = self.value(&field, variable) {
                env.insert(variable.name.clone(), value);
            }
        }
        for (name, value) in &env {
            if value.contains("$(") {
                self.mistake(name, "$(NAME) is not supported here");
            }
        }
        env
    }

    fn variables(&mut self, field: &str, variables: &Variables) -> Vec<(String, String)> {
        let (map, reference) = match (&variables.config_map_ref, &variables.secret_ref) {
            (Some(reference), None) => (Map::Config, reference),
            (None, Some(reference)) => (Map::Secret, reference),
            _ => {
                self.mistake(field, "is a configMapRef or a secretRef");
                return Vec::new();
            }
        };
        let found = self.entries(field, map, &reference.name, reference.optional);
        found
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(key, value)| {
                let name = format!("{}{key}", variables.prefix);
                // A file's name, in a map that has both: no shell would pass it on.
                if !name
                    .bytes()
                    .all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
                {
                    return None;
                }
                Some((name, self.text(field, value)?))
            })
            .collect()
    }

    fn value(&mut self, field: &str, variable: &Variable) -> Option<String> {
        match (&variable.value, &variable.value_from) {
            (value, None) => Some(value.clone().unwrap_or_default()),
            (None, Some(ValueFrom::ConfigMapKeyRef(key))) => self.entry(field, Map::Config, key),
            (None, Some(ValueFrom::SecretKeyRef(key))) => self.entry(field, Map::Secret, key),
            (Some(_), Some(_)) => {
                self.mistake(field, "has both a value and a valueFrom");
                None
            }
        }
    }

    fn entry(&mut self, field: &str, map: Map, reference: &KeyRef) -> Option<String> {
        let KeyRef {
            name,
            key,
            optional,
        } = reference;
        let value = self.entries(field, map, name, *optional)?.remove(key);
        if value.is_none() && !optional {
            self.mistake(field, format!("{} {name} has no key {key}", map.kind()));
        }
        self.text(field, value?)
    }

    fn entries(&mut self, field: &str, map: Map, name: &str, optional: bool) -> Option<Entries> {
        let found = self.configuration.get(map, &self.object.namespace, name);
        if found.is_none() && !optional {
            self.mistake(field, format!("there is no {} {name}", map.kind()));
        }
        found.cloned()
    }

    fn text(&mut self, field: &str, value: Vec<u8>) -> Option<String> {
        let text = String::from_utf8(value);
        if text.is_err() {
            self.mistake(field, "is no text");
        }
        text.ok()
    }

    fn mounts(&mut self, container: &Container, volumes: &[Volume]) -> BTreeMap<PathBuf, Entries> {
        let mut mounts = BTreeMap::new();
        for mount in &container.volume_mounts {
            let field = format!("volumeMounts[{}]", mount.name);
            let Some(volume) = volumes.iter().find(|volume| volume.name == mount.name) else {
                self.mistake(&field, "there is no such volume");
                continue;
            };
            let entries = match (&volume.config_map, &volume.secret, &volume.empty_dir) {
                (Some(map), None, None) => {
                    self.entries(&field, Map::Config, &map.name, map.optional)
                }
                (None, Some(map), None) => {
                    self.entries(&field, Map::Secret, &map.secret_name, map.optional)
                }
                // Each process has the machine's /tmp.
                (None, None, Some(_)) => continue,
                _ => {
                    self.mistake(&field, "its volume is a configMap, a secret or an emptyDir");
                    None
                }
            };
            mounts.insert(
                PathBuf::from(&mount.mount_path),
                entries.unwrap_or_default(),
            );
        }
        mounts
    }

    fn probe(&mut self, field: &str, spec: Option<&super::spec::ProbeSpec>) -> Option<Probe> {
        let probe = Probe::read(spec?);
        if probe.is_none() {
            self.mistake(field, "is an httpGet or a tcpSocket");
        }
        probe
    }
}
