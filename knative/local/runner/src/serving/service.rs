//! What a Service (serving.knative.dev/v1) and a Deployment (apps/v1) ask for.

use std::time::Duration;

use crate::manifests::{Mistake, Object};

use super::{
    autoscaling::Autoscaling,
    configuration::Configuration,
    probe::Probe,
    spec::{DeploymentSpec, PodSpec, ServiceSpec},
    template::Template,
};

/// Knative's default for `timeoutSeconds`.
const TIMEOUT: u64 = 300;

/// Kubernetes' default for `terminationGracePeriodSeconds`.
const GRACE: u64 = 30;

/// How a Service takes requests and how many pods it has.
#[derive(Clone, Debug)]
pub(super) struct ServicePlan {
    pub(super) template: Template,
    /// Requests at once in one pod; 0 is no limit.
    pub(super) concurrency: usize,
    /// How long a request may take in all.
    pub(super) timeout: Duration,
    pub(super) autoscaling: Autoscaling,
}

/// A program that runs always, as often as it says.
#[derive(Clone, Debug)]
pub(super) struct DeploymentPlan {
    pub(super) template: Template,
    pub(super) replicas: usize,
}

impl ServicePlan {
    pub(super) fn read(object: &Object, maps: &Configuration) -> Result<Self, Vec<Mistake>> {
        let spec: ServiceSpec = object.part("spec").map_err(|mistake| vec![mistake])?;
        let pod = &spec.template.spec;
        let mut mistakes = Vec::new();
        if pod.termination_grace_period_seconds.is_some() {
            let field = "spec.template.spec.terminationGracePeriodSeconds";
            mistakes.push(object.mistake(field, "Knative takes it from timeoutSeconds"));
        }
        let misplaced = object.value.pointer("/metadata/annotations");
        for name in misplaced
            .and_then(|map| map.as_object())
            .into_iter()
            .flat_map(|map| map.keys())
        {
            if name.starts_with("autoscaling.knative.dev/") {
                let field = format!("metadata.annotations.{name}");
                mistakes.push(object.mistake(field, "belongs on spec.template"));
            }
        }
        let concurrency = pod.container_concurrency.unwrap_or(0);
        let timeout = Duration::from_secs(pod.timeout_seconds.unwrap_or(TIMEOUT));
        let template = Template::read(object, pod, maps, timeout);
        let annotations = &spec.template.metadata.annotations;
        let autoscaling = Autoscaling::read(object, annotations, concurrency);
        let (mut template, autoscaling) = both(template, autoscaling, mistakes)?;
        template.readiness.get_or_insert_with(Probe::port_is_open);
        Ok(Self {
            template,
            concurrency,
            timeout,
            autoscaling,
        })
    }
}

impl DeploymentPlan {
    pub(super) fn read(object: &Object, maps: &Configuration) -> Result<Self, Vec<Mistake>> {
        let spec: DeploymentSpec = object.part("spec").map_err(|mistake| vec![mistake])?;
        let pod: &PodSpec = &spec.template.spec;
        let mut mistakes = Vec::new();
        if pod.container_concurrency.is_some() || pod.timeout_seconds.is_some() {
            let why = "containerConcurrency and timeoutSeconds are a Service's";
            mistakes.push(object.mistake("spec.template.spec", why));
        }
        let grace = pod.termination_grace_period_seconds.unwrap_or(GRACE);
        let template = Template::read(object, pod, maps, Duration::from_secs(grace));
        let (template, ()) = both(template, Ok(()), mistakes)?;
        Ok(Self {
            template,
            replicas: spec.replicas.unwrap_or(1),
        })
    }
}

/// Returns both values, or the mistakes of all.
fn both<A, B>(
    a: Result<A, Vec<Mistake>>,
    b: Result<B, Vec<Mistake>>,
    mut mistakes: Vec<Mistake>,
) -> Result<(A, B), Vec<Mistake>> {
    match (a, b) {
        (Ok(a), Ok(b)) if mistakes.is_empty() => Ok((a, b)),
        (a, b) => {
            mistakes.extend(a.err().unwrap_or_default());
            mistakes.extend(b.err().unwrap_or_default());
            Err(mistakes)
        }
    }
}
