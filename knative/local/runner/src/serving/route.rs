//! HTTPRoutes (gateway.networking.k8s.io/v1): which Service answers to a path and a method.
//!
//! The API's listener stands for the gateway that `parentRefs` names, and takes every hostname.

use std::cmp::Reverse;

use http::Method;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use crate::manifests::{Mistake, Object};

/// A Service by its namespace and name.
pub(crate) type ServiceName = (String, String);

/// The rules of every route, the most specific first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    path: PathMatch,
    method: Option<Method>,
    service: ServiceName,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RouteSpec {
    rules: Vec<RuleSpec>,
    #[serde(default, rename = "parentRefs")]
    _parent_refs: Option<IgnoredAny>,
    #[serde(default, rename = "hostnames")]
    _hostnames: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleSpec {
    #[serde(default = "everything")]
    matches: Vec<Match>,
    #[serde(default)]
    filters: Vec<Filter>,
    backend_refs: [BackendRef; 1],
    #[serde(default, rename = "name")]
    _name: Option<IgnoredAny>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    #[serde(default)]
    path: PathMatch,
    #[serde(default, deserialize_with = "method")]
    method: Option<Method>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", content = "value", deny_unknown_fields)]
enum PathMatch {
    Exact(String),
    PathPrefix(String),
}

#[derive(Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
enum Filter {
    #[serde(rename = "URLRewrite")]
    UrlRewrite {
        #[serde(rename = "urlRewrite")]
        url_rewrite: UrlRewrite,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UrlRewrite {
    hostname: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BackendRef {
    name: String,
    namespace: Option<String>,
    #[serde(default, rename = "group")]
    _group: Option<IgnoredAny>,
    #[serde(default, rename = "kind")]
    _kind: Option<IgnoredAny>,
    #[serde(default, rename = "port")]
    _port: Option<IgnoredAny>,
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::PathPrefix("/".to_owned())
    }
}

impl PathMatch {
    /// A prefix is one of whole path elements: `/foo` has `/foo/bar`, and not `/foobar`.
    fn has(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::PathPrefix(prefix) => path
                .strip_prefix(prefix.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Exact(path) | Self::PathPrefix(path) => path,
        }
    }
}

fn everything() -> Vec<Match> {
    vec![Match::default()]
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Method>, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map(Some).map_err(serde::de::Error::custom)
}

impl Routes {
    /// Takes in the rules of one HTTPRoute. Every backend must be one of `services`.
    pub(super) fn add(
        &mut self,
        object: &Object,
        known: impl Fn(&ServiceName) -> bool,
    ) -> Result<(), Vec<Mistake>> {
        let spec: RouteSpec = object.part("spec").map_err(|mistake| vec![mistake])?;
        let mut mistakes = Vec::new();
        for (index, rule) in spec.rules.into_iter().enumerate() {
            let field = format!("spec.rules[{index}]");
            let service = match service(object, &rule) {
                Some(service) if known(&service) => service,
                Some((namespace, name)) => {
                    let why = format!("there is no Service {namespace}/{name}");
                    mistakes.push(object.mistake(field, why));
                    continue;
                }
                None => {
                    mistakes.push(object.mistake(field, "names no Service of the cluster"));
                    continue;
                }
            };
            self.rules.extend(rule.matches.into_iter().map(|one| Rule {
                path: one.path,
                method: one.method,
                service: service.clone(),
            }));
        }
        // Stable, as between equals the first rule is the stronger.
        self.rules.sort_by_key(|rule| {
            let exact = matches!(rule.path, PathMatch::Exact(_));
            Reverse((exact, rule.path.text().len(), rule.method.is_some()))
        });
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(mistakes)
        }
    }

    /// Returns who answers to a request, if anybody does.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Option<&ServiceName> {
        let rule = self.rules.iter().find(|rule| {
            rule.path.has(path) && rule.method.as_ref().is_none_or(|wanted| wanted == method)
        })?;
        Some(&rule.service)
    }
}

/// Returns the Service that a rule leads to. Knative's Services are reached through its gateway,
/// which knows them by the host, so a rule that rewrites it says there which one it means.
fn service(object: &Object, rule: &RuleSpec) -> Option<ServiceName> {
    if let Some(Filter::UrlRewrite { url_rewrite }) = rule.filters.first() {
        return named(&url_rewrite.hostname);
    }
    let [backend] = &rule.backend_refs;
    let namespace = backend.namespace.as_ref().unwrap_or(&object.namespace);
    Some((namespace.clone(), backend.name.clone()))
}

/// Returns the Service whose name in the cluster's DNS is `host`.
pub(crate) fn named(host: &str) -> Option<ServiceName> {
    let host = host.strip_suffix(".svc.cluster.local")?;
    let (name, namespace) = host.split_once('.')?;
    Some((namespace.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn route(rules: serde_json::Value) -> Object {
        Object {
            api_version: "gateway.networking.k8s.io/v1".into(),
            kind: "HTTPRoute".into(),
            namespace: "ns".into(),
            name: "route".into(),
            value: json!({"spec": {"parentRefs": [{"name": "gateway"}], "rules": rules}}),
            file: "route.yaml".into(),
        }
    }

    fn to(name: &str, matches: serde_json::Value) -> serde_json::Value {
        json!({"matches": matches, "backendRefs": [{"name": name, "port": 80}]})
    }

    #[test]
    fn the_most_specific_rule_wins() {
        let mut routes = Routes::default();
        let prefix = |path: &str| json!({"path": {"type": "PathPrefix", "value": path}});
        let rules = json!([
            to("all", json!([prefix("/")])),
            to("api", json!([prefix("/api")])),
            to(
                "post",
                json!([{"path": {"type": "PathPrefix", "value": "/api"}, "method": "POST"}])
            ),
            to(
                "exact",
                json!([{"path": {"type": "Exact", "value": "/api/v1"}}])
            ),
            to("deep", json!([prefix("/api/v1/")])),
        ]);
        routes.add(&route(rules), |_| true).unwrap();
        let table = [
            ("GET", "/", "all"),
            ("GET", "/apis", "all"),
            ("GET", "/api", "api"),
            ("GET", "/api/x", "api"),
            ("POST", "/api/x", "post"),
            ("POST", "/api/v1", "exact"),
            ("POST", "/api/v1/x", "deep"),
        ];
        for (method, path, service) in table {
            let found = routes.find(&method.parse().unwrap(), path).unwrap();
            assert_eq!(found.1, service, "{method} {path}");
        }
    }

    #[test]
    fn a_rewritten_host_names_the_service() {
        let mut routes = Routes::default();
        let rewrite = json!({"type": "URLRewrite",
            "urlRewrite": {"hostname": "query.other.svc.cluster.local"}});
        let rules = json!([{
            "filters": [rewrite],
            "backendRefs": [{"name": "gateway", "namespace": "system", "port": 80}],
        }]);
        routes.add(&route(rules), |_| true).unwrap();
        let found = routes.find(&Method::GET, "/x").unwrap();
        assert_eq!(found, &("other".to_owned(), "query".to_owned()));
    }

    #[test]
    fn what_a_route_says_in_vain_is_a_mistake() {
        let table = [
            (to("nobody", json!([{}])), "spec.rules[0]"),
            (
                to("a", json!([{"headers": []}])),
                "spec.rules[0].matches[0]",
            ),
            (
                to(
                    "a",
                    json!([{"path": {"type": "RegularExpression", "value": "."}}]),
                ),
                "spec.rules[0]",
            ),
            (json!({"backendRefs": []}), "spec.rules[0].backendRefs"),
        ];
        for (rule, field) in table {
            let mistakes = Routes::default()
                .add(&route(json!([rule])), |(_, name)| name == "a")
                .unwrap_err();
            assert!(mistakes[0].field.starts_with(field), "{mistakes:?}");
        }
    }
}
