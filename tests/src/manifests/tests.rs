//! Good folders pass; each broken one fails the rule that it is against, and that one only.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use model::{Catalog, Decimal, Policy, QuotaRules};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{GOOD, RULES, Report, check};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Broken {
    rule: String,
    #[serde(default)]
    on: Option<String>,
    #[serde(default)]
    patches: Vec<Value>,
    #[serde(default)]
    resources: Vec<String>,
}

pub(super) fn project() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("tests lies in the project")
        .to_owned()
}

/// Checks a good folder with changes, which are made in a folder of their own.
fn changed(on: &str, broken: &Broken) -> Report {
    let (_, good) = GOOD
        .iter()
        .find(|(name, _)| *name == on)
        .expect("a good folder");
    let folder = std::env::temp_dir().join(format!("broken-{}", uuid::Uuid::new_v4()));
    fs::create_dir_all(&folder).unwrap();
    let folder = folder.canonicalize().unwrap();
    // A kustomization's resources are named from where it is.
    let up = "../".repeat(folder.components().count() - 1);
    let good = project().join(good).canonicalize().unwrap();
    let mut resources = vec![format!("{up}{}", good.strip_prefix("/").unwrap().display())];
    for name in &broken.resources {
        let stray = project().join("tests/manifests").join(name);
        fs::copy(stray, folder.join(name)).unwrap();
        resources.push(name.clone());
    }
    let kustomization = json!({"resources": resources, "patches": broken.patches});
    fs::write(folder.join("kustomization.yaml"), kustomization.to_string()).unwrap();
    let report = check(&folder);
    fs::remove_dir_all(folder).unwrap();
    report
}

#[test]
fn what_we_deploy_is_right() {
    for (_, good) in GOOD {
        let report = check(&project().join(good));
        assert!(report.objects > 10, "{good}");
        let wrong: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        assert!(wrong.is_empty(), "{good}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn the_prices_that_we_ship_are_those_of_the_meters_that_we_ship() {
    let read = |name: &str| fs::read_to_string(project().join("knative/base").join(name)).unwrap();
    let meters = Catalog::from_yaml(&read("meters.yaml")).unwrap();
    let rules = QuotaRules::from_yaml(&read("quota-rules.yaml"), &meters).unwrap();
    let price = |endpoint: &str| {
        let usage = |name: &str| (name == "endpoint").then_some(endpoint);
        let price = rules.prices.price_of("api_calls", Decimal::ONE, 0, usage);
        price.unwrap().unwrap().to_string()
    };
    assert_eq!([price("/accounts"), price("/payments")], ["1", "5"]);
    assert_eq!(rules.policies.unknown(), None);
    assert_eq!(rules.policies.of("anybody"), Policy::HardStop);
}

#[test]
fn each_rule_refuses_what_it_is_for_and_no_other_does() {
    let text = fs::read_to_string(project().join("tests/manifests/broken.yaml")).unwrap();
    let broken: Vec<Broken> = serde_yaml_ng::from_str(&text).unwrap();
    let (mut shown, mut wrong) = (BTreeSet::new(), Vec::new());
    for (number, example) in broken.iter().enumerate() {
        let report = changed(example.on.as_deref().unwrap_or("local"), example);
        let rules: BTreeSet<_> = report.findings.iter().map(|finding| finding.rule).collect();
        let mut others = rules.clone();
        others.remove(example.rule.as_str());
        // What the runner cannot read either is told by both.
        others.remove("runner");
        if !others.is_empty() || !rules.contains(example.rule.as_str()) {
            wrong.push(format!(
                "example {number}, {}, fails {rules:?}:",
                example.rule
            ));
            wrong.extend(report.findings.iter().map(ToString::to_string));
        }
        shown.insert(example.rule.as_str());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (rule, _) in RULES {
        assert!(shown.contains(rule), "no example is against {rule}");
    }
}

#[test]
fn what_does_not_render_is_a_mistake() {
    let report = check(Path::new("nowhere"));
    let rules: Vec<_> = report.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!((report.objects, rules), (0, vec!["render"]));
}
