//! The cluster of one machine: what runs, by the names that a cluster's DNS gives it.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde::Serialize;
use tokio::time::timeout;

use crate::{
    network::{Network, Unanswered},
    serving::{
        Client, ColdStarts, Folders, Plan, Routes, Running, Service, StartError, Status, client,
        named,
    },
};

/// The largest body that the API takes, and that is read of an answer: more than any function
/// takes, so that its own limit is the one that is met.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// What concerns one connection only, and is not passed on (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Services, Deployments and routes that run.
pub struct Cluster {
    running: Running,
    routes: Routes,
    client: Client,
    folders: Folders,
}

/// What can be said of a Service or a Deployment.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its pods.
    pub instances: Vec<Status>,
    /// How often processes died and were started again, in pods that are gone too.
    pub restarts: u64,
    /// Requests that found no pod; a Deployment has none.
    pub cold_starts: ColdStarts,
}

impl Cluster {
    /// Starts what `plan` says.
    pub fn start(plan: Plan, folders: Folders) -> Result<Arc<Self>, StartError> {
        let client = client();
        let routes = plan.routes().clone();
        let running = plan.start(&folders, &client)?;
        Ok(Arc::new(Self {
            running,
            routes,
            client,
            folders,
        }))
    }

    /// Returns a Service by its name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.running.services.get(&key)
    }

    /// Returns what every Service and Deployment is at.
    pub fn status(&self) -> Vec<WorkloadStatus> {
        let services = self.running.services.iter();
        let services =
            services.map(|(key, service)| (key, service.workload(), service.cold_starts()));
        let deployments = self.running.deployments.iter();
        let deployments = deployments.map(|(key, pods)| (key, pods, ColdStarts::default()));
        services
            .chain(deployments)
            .map(
                |((namespace, name), workload, cold_starts)| WorkloadStatus {
                    namespace: namespace.clone(),
                    name: name.clone(),
                    instances: workload.pods(),
                    restarts: workload.restarts(),
                    cold_starts,
                },
            )
            .collect()
    }

    /// Returns the server of the HTTPRoutes.
    pub fn api(self: &Arc<Self>) -> Router {
        let cluster = self.clone();
        Router::new().fallback(move |request| async move { cluster.route(request).await })
    }

    /// Writes the files of ConfigMaps and Secrets as `plan`, read anew, has them. Nothing else
    /// of it is taken: for that the runner is started again.
    pub fn rewrite(&self, plan: &Plan) -> Result<(), StartError> {
        plan.rewrite(&self.folders.state)
    }

    /// Ends every pod after its requests, and kills those that are left `within` a time.
    pub async fn stop(&self, within: Duration) {
        let services = join_all(self.running.services.values().map(|service| service.end()));
        let deployments = join_all(self.running.deployments.values().map(|pods| pods.end()));
        let all = async { tokio::join!(services, deployments) };
        let mut all = std::pin::pin!(all);
        if timeout(within, &mut all).await.is_err() {
            tracing::warn!(?within, "what was still running is killed");
            self.running
                .services
                .values()
                .for_each(|service| service.hurry());
            self.running
                .deployments
                .values()
                .for_each(|pods| pods.hurry());
            all.await;
        }
    }

    async fn route(&self, mut request: Request<Body>) -> Response<Body> {
        let found = self.routes.find(request.method(), request.uri().path());
        let service = found.and_then(|name| Some((name, self.running.services.get(name)?)));
        let Some(((namespace, name), service)) = service else {
            return answer(StatusCode::NOT_FOUND);
        };
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > BODY_LIMIT) {
            return answer(StatusCode::PAYLOAD_TOO_LARGE);
        }
        drop_hop_by_hop(request.headers_mut());
        if let Ok(host) = format!("{name}.{namespace}.svc.cluster.local").parse() {
            request.headers_mut().insert(header::HOST, host);
        }
        let request = request.map(|body| Body::new(Limited::new(body, BODY_LIMIT)));
        let mut response = service.send(request).await;
        drop_hop_by_hop(response.headers_mut());
        response
    }

    async fn carry(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unanswered> {
        let host = request.uri().host().unwrap_or_default();
        let unreachable =
            |error: &dyn std::fmt::Display| Unanswered::Unreachable(error.to_string());
        let response = if host.ends_with(".cluster.local") {
            let service = named(host).and_then(|name| self.running.services.get(&name));
            let Some(service) = service else {
                return Err(unreachable(&format_args!("nobody is called {host}")));
            };
            service.send(request.map(Body::from)).await
        } else {
            let sent = self.client.request(request.map(Body::from)).await;
            sent.map_err(|error| unreachable(&error))?.map(Body::new)
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_LIMIT).collect().await;
        let body = body.map_err(|error| unreachable(&error))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

impl Network for Cluster {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, Unanswered>> {
        Box::pin(self.carry(request))
    }
}

/// Reads the files that a kustomize folder has now, and writes those that pods have mounted.
pub fn reload(cluster: &Cluster, folder: &Path) {
    let plan = crate::manifests::render(folder).and_then(|objects| Plan::read(&objects));
    match plan.map(|plan| cluster.rewrite(&plan)) {
        Ok(Ok(())) => tracing::info!("wrote the mounted files anew"),
        Ok(Err(error)) => tracing::error!(%error, "cannot write the mounted files"),
        Err(mistakes) => {
            for mistake in mistakes {
                tracing::error!("{mistake}");
            }
        }
    }
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn answer(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
