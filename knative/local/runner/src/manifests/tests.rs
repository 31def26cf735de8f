//! The table of `cases.yaml`, and laws of the merge.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{merge::merge, render};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    files: BTreeMap<PathBuf, String>,
    #[serde(default)]
    want: Vec<Value>,
    #[serde(default)]
    mistakes: Vec<String>,
}

#[test]
fn folders_render_as_kustomize_renders_them() {
    let text = include_str!("cases.yaml");
    let cases: Vec<Case> = serde_yaml_ng::from_str(text).expect("cases.yaml");
    assert!(cases.len() > 20);
    for case in cases {
        let folder = std::env::temp_dir().join(format!("manifests-{}", uuid::Uuid::new_v4()));
        for (path, text) in &case.files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap_or(&folder)).unwrap();
            fs::write(path, text).unwrap();
        }
        let rendered = render(&folder);
        fs::remove_dir_all(&folder).unwrap();
        let (objects, mistakes) = match rendered {
            Ok(objects) => (objects, Vec::new()),
            Err(mistakes) => (Vec::new(), mistakes),
        };
        let prefix = format!("{}/", folder.display());
        let mistakes: Vec<_> = mistakes
            .iter()
            .map(|mistake| mistake.to_string().replace(&prefix, ""))
            .collect();
        assert_eq!(mistakes, case.mistakes, "{}", case.name);
        let sorted = |objects: Vec<Value>| {
            let key = |value: &Value| {
                let metadata = &value["metadata"];
                format!(
                    "{}/{}/{}",
                    value["kind"], metadata["namespace"], metadata["name"]
                )
            };
            let mut sorted = objects;
            sorted.sort_by_key(key);
            sorted
        };
        for object in &objects {
            assert_eq!(object.value["metadata"]["name"], object.name.as_str());
        }
        let objects = objects.into_iter().map(|object| object.value).collect();
        assert_eq!(sorted(objects), sorted(case.want), "{}", case.name);
    }
}

#[test]
fn a_mistake_names_the_file_in_its_shortest_form() {
    let mistakes = render(Path::new("./nowhere/../src/./no")).unwrap_err();
    assert!(
        mistakes[0]
            .to_string()
            .starts_with("src/no/kustomization.yaml: "),
        "{mistakes:?}"
    );
}

/// Objects of a few members, so that patches meet what they change.
fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(1)),
        Just(json!("x")),
        Just(json!([1, 2])),
        Just(json!([{"name": "a", "value": "1"}])),
    ];
    let tree = leaf.prop_recursive(3, 12, 3, |inner| {
        prop::collection::btree_map("[a-c]|env|ports", inner, 0..3).prop_map(|map| json!(map))
    });
    prop::collection::btree_map("[a-c]|env", tree, 0..4).prop_map(|map| json!(map))
}

/// What a merge has nothing to do with: paths to scalars and lists.
fn leaves(value: &Value, path: String, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                leaves(member, format!("{path}/{name}"), into);
            }
        }
        leaf => drop(into.insert(path, leaf.clone())),
    }
}

proptest! {
    #[test]
    fn a_patch_applied_twice_is_applied_once(target in tree(), patch in tree(), keyed: bool) {
        let kind = if keyed { "Deployment" } else { "Service" };
        let mut once = target;
        prop_assert!(merge(&mut once, patch.clone(), kind));
        let mut twice = once.clone();
        prop_assert!(merge(&mut twice, patch, kind));
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn what_a_patch_says_is_there_and_the_rest_is_as_it_was(target in tree(), patch in tree()) {
        let mut merged = target.clone();
        prop_assert!(merge(&mut merged, patch.clone(), "Service"));
        let (mut said, mut was, mut is) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        leaves(&patch, String::new(), &mut said);
        leaves(&target, String::new(), &mut was);
        leaves(&merged, String::new(), &mut is);
        for (path, value) in &said {
            prop_assert_eq!(is.get(path), Some(value));
        }
        for (path, value) in &is {
            prop_assert!(said.get(path).or(was.get(path)) == Some(value));
        }
    }

    #[test]
    fn null_takes_away_what_a_patch_put_there(target in tree(), name in "[a-c]") {
        let mut patched = target.clone();
        let kept = merge(&mut patched, json!({&name: null}), "Service");
        prop_assert!(kept);
        prop_assert!(patched.get(&name).is_none());
        let mut without = target;
        without.as_object_mut().unwrap().remove(&name);
        prop_assert_eq!(patched, without);
    }
}
