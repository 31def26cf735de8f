//! Services and Deployments as processes, ConfigMaps and Secrets as environment and files, and
//! HTTPRoutes.
//!
//! # Layout
//! - [`Plan`]: what the manifests ask for, with all mistakes in one report
//! - `spec`, `service`, `template`, `configuration`, `autoscaling`, `route`: its parts
//! - [`Service`] (`front`, `autoscaler`): a Service that takes requests, and brings pods about
//! - `workload`, `pod`, `process`, `probe`: pods and their processes
//!
//! # What differs from a cluster
//! - A container is the process of the program that the image is named after, in a given folder.
//! - It listens on a port of its own, told by `$PORT`, whatever the manifest's number is.
//! - Its mounted ConfigMaps and Secrets are files under a given folder, and environment variables
//!   and arguments that are paths below a mount are rewritten to that.
//! - There is one revision of a Service. The request that finds no pod waits as long as
//!   `timeoutSeconds` says.
//! - Pods that are told to end do so after their last request, without Knative's 30 s of waiting
//!   for the network; those that died are started again at once, then with a growing delay.

mod autoscaler;
mod autoscaling;
mod configuration;
mod front;
mod pod;
mod probe;
mod process;
mod route;
mod service;
mod spec;
mod template;
mod workload;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use configuration::{Configuration, Map};
use service::{DeploymentPlan, ServicePlan};
use template::Template;
use workload::{Making, Workload};

use crate::{
    eventing,
    manifests::{Mistake, Object},
};

pub use front::{ColdStarts, Service};
pub use pod::{Phase, Status};

pub(crate) use front::{Client, client};
pub(crate) use route::{Routes, ServiceName, named};

/// What the manifests ask for, beside events.
#[derive(Debug)]
pub struct Plan {
    services: BTreeMap<ServiceName, ServicePlan>,
    deployments: BTreeMap<ServiceName, DeploymentPlan>,
    routes: Routes,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A program is not in the folder.
    #[error("there is no program {program} for {workload}")]
    NoProgram {
        /// Its file.
        program: PathBuf,
        /// Who wants it.
        workload: String,
    },
    /// Mounted files could not be written.
    #[error("write the mounted files of {workload}")]
    Files {
        /// Whose.
        workload: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// Where a machine keeps what a cluster has elsewhere.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Programs, named like their images.
    pub programs: PathBuf,
    /// Mounted files.
    pub state: PathBuf,
}

/// The Services and Deployments that run.
pub(crate) struct Running {
    pub(crate) services: BTreeMap<ServiceName, Arc<Service>>,
    pub(crate) deployments: BTreeMap<ServiceName, Arc<Workload>>,
}

impl Plan {
    /// Reads the manifests whole. Kinds that nobody here knows are mistakes.
    pub fn read(objects: &[Object]) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut maps = Configuration::default();
        let mut services = BTreeMap::new();
        let mut deployments = BTreeMap::new();
        let mut routes = Routes::default();
        let kind = |object: &Object| (object.api_version.clone(), object.kind.clone());
        let of = |api_version: &'static str, name: &'static str| {
            let wanted = (api_version.to_owned(), name.to_owned());
            objects.iter().filter(move |object| kind(object) == wanted)
        };
        for map in [Map::Config, Map::Secret] {
            for object in of("v1", map.kind()) {
                mistakes.extend(maps.add(map, object).err().unwrap_or_default());
            }
        }
        let mut keep = |mistake: Vec<Mistake>| mistakes.extend(mistake);
        let key = |object: &Object| (object.namespace.clone(), object.name.clone());
        for object in of("serving.knative.dev/v1", "Service") {
            match ServicePlan::read(object, &maps) {
                Ok(plan) => drop(services.insert(key(object), plan)),
                Err(wrong) => keep(wrong),
            }
        }
        for object in of("apps/v1", "Deployment") {
            match DeploymentPlan::read(object, &maps) {
                Ok(plan) => drop(deployments.insert(key(object), plan)),
                Err(wrong) => keep(wrong),
            }
        }
        for object in of("gateway.networking.k8s.io/v1", "HTTPRoute") {
            // Also those that are wrong themselves: one mistake is told once.
            let known = |name: &ServiceName| {
                of("serving.knative.dev/v1", "Service").any(|object| key(object) == *name)
            };
            keep(routes.add(object, known).err().unwrap_or_default());
        }
        for object in objects {
            let (api_version, kind) = (object.api_version.as_str(), object.kind.as_str());
            let ours = matches!(
                (api_version, kind),
                ("v1", "ConfigMap" | "Secret" | "Namespace")
                    | ("serving.knative.dev/v1", "Service")
                    | ("apps/v1", "Deployment")
                    | ("gateway.networking.k8s.io/v1", "HTTPRoute")
            );
            if !ours && !eventing::KINDS.contains(&(api_version, kind)) {
                keep(vec![object.mistake(
                    "kind",
                    format!("{api_version} {kind} is not supported here"),
                )]);
            }
        }
        if !mistakes.is_empty() {
            mistakes.sort();
            return Err(mistakes);
        }
        Ok(Self {
            services,
            deployments,
            routes,
        })
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Writes the mounted files, and starts everything once all is in place for it.
    pub(crate) fn start(self, folders: &Folders, client: &Client) -> Result<Running, StartError> {
        self.find_programs(&folders.programs)?;
        let mut services = BTreeMap::new();
        let mut deployments = BTreeMap::new();
        let making = |key: &ServiceName, template: &Template, platform| {
            let installed = template
                .clone()
                .install(&folder(&folders.state, key))
                .map_err(|source| files(key, source))?;
            Ok(Making {
                name: key.1.clone(),
                program: folders.programs.join(&template.program),
                template: Arc::new(installed),
                platform,
                client: client.clone(),
            })
        };
        for (key, plan) in self.services {
            let revision = format!("{}-00001", key.1);
            let platform = vec![
                ("K_SERVICE", key.1.clone()),
                ("K_CONFIGURATION", key.1.clone()),
                ("K_REVISION", revision),
            ];
            let making = making(&key, &plan.template, platform)?;
            services.insert(key, (making, plan));
        }
        for (key, plan) in self.deployments {
            let making = making(&key, &plan.template, Vec::new())?;
            deployments.insert(key, (making, plan.replicas));
        }
        let services = services
            .into_iter()
            .map(|(key, (making, plan))| (key, Service::start(making, plan)));
        let deployments = deployments.into_iter().map(|(key, (making, replicas))| {
            let workload = Workload::new(making, 0);
            workload.scale(replicas);
            (key, workload)
        });
        Ok(Running {
            services: services.collect(),
            deployments: deployments.collect(),
        })
    }

    /// Writes the mounted files of what runs anew, for the functions to read them.
    pub(crate) fn rewrite(&self, state: &Path) -> Result<(), StartError> {
        for (key, template) in self.templates() {
            template
                .write(&folder(state, key))
                .map_err(|source| files(key, source))?;
        }
        Ok(())
    }

    fn templates(&self) -> impl Iterator<Item = (&ServiceName, &Template)> {
        let services = self
            .services
            .iter()
            .map(|(key, plan)| (key, &plan.template));
        let deployments = self
            .deployments
            .iter()
            .map(|(key, plan)| (key, &plan.template));
        services.chain(deployments)
    }

    fn find_programs(&self, folder: &Path) -> Result<(), StartError> {
        for ((namespace, name), template) in self.templates() {
            let program = folder.join(&template.program);
            if !program.is_file() {
                let workload = format!("{namespace}/{name}");
                return Err(StartError::NoProgram { program, workload });
            }
        }
        Ok(())
    }
}

/// Returns where the mounted files of a workload are.
fn folder(state: &Path, (namespace, name): &ServiceName) -> PathBuf {
    state.join(namespace).join(name)
}

fn files((namespace, name): &ServiceName, source: std::io::Error) -> StartError {
    let workload = format!("{namespace}/{name}");
    StartError::Files { workload, source }
}
