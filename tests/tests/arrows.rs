//! Which crate may lean on which: an allow-list, so that a new arrow fails until somebody draws it here.

#![allow(clippy::unwrap_used, reason = "a helper says by panicking that a story went wrong")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Arrows between crates of the house.
const ARROWS: [(&str, &[&str]); 14] = [
    ("model", &[]),
    ("runtime", &[]),
    ("spec", &["model"]),
    ("planner", &["model", "planner"]), // Itself: its tests switch a feature of its own on.
    ("proto", &["model"]),
    ("store", &["model"]),
    ("controller", &["model", "spec", "planner", "proto", "store", "runtime"]),
    ("agent", &["model", "proto", "runtime"]),
    ("cli", &["model", "spec", "proto", "runtime"]),
    ("convert", &["model"]),
    ("tokenize", &["model"]),
    ("stories", &["model"]),
    ("bench", &["proto", "runtime"]),
    ("fuzz", &["model", "spec", "proto", "store", "agent", "convert", "tokenize"]),
];

/// Foreign crates that only some may name, by the beginning of the foreign name.
const RESERVED: [(&str, &[&str]); 2] =
    [("tonic", &["proto", "controller", "agent", "cli", "runtime", "store", "bench"]), ("redb", &["store"])];

/// The crates that decide: everything they name, in any section.
const PURE: [(&str, &[&str]); 2] = [("model", &["thiserror"]), ("planner", &["model", "planner"])];

/// What must not come to a crate that decides by any detour.
const BANNED: [&str; 5] = ["tokio", "serde", "prost", "tonic", "rand"];

/// The platform that this compiler builds for.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

struct House {
    /// Crate of the house -> everything it names.
    named: BTreeMap<String, BTreeSet<String>>,
    /// Package id -> name.
    names: BTreeMap<String, String>,
    /// Package id -> ids of what is built into it, without tests.
    built: BTreeMap<String, Vec<String>>,
}

impl House {
    fn read() -> Self {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["metadata", "--format-version", "1", "--offline", "--locked"])
            // Packages of other platforms need not have been fetched.
            .args(["--filter-platform", &host()])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = cargo.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let members: BTreeSet<String> = list(&all["workspace_members"]).iter().map(text).collect();
        let mut house = Self { named: BTreeMap::new(), names: BTreeMap::new(), built: BTreeMap::new() };
        for package in list(&all["packages"]) {
            if members.contains(&text(&package["id"])) {
                let named = list(&package["dependencies"]).iter().map(|one| text(&one["name"])).collect();
                house.named.insert(text(&package["name"]), named);
            }
            house.names.insert(text(&package["id"]), text(&package["name"]));
        }
        for node in list(&all["resolve"]["nodes"]) {
            let leads = list(&node["deps"]);
            let built = leads.iter().filter(|dep| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev"));
            house.built.insert(text(&node["id"]), built.map(|dep| text(&dep["pkg"])).collect());
        }
        house
    }

    /// Names of all that is built into a crate of the house.
    fn closure(&self, member: &str) -> BTreeSet<&str> {
        let own = |id: &&String| self.names[*id] == member && id.contains("path+file");
        let mut open: Vec<&String> = self.names.keys().filter(own).collect();
        assert_eq!(open.len(), 1, "{member} is found");
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                open.extend(&self.built[id]);
            }
        }
        seen.into_iter().map(|id| self.names[id].as_str()).collect()
    }
}

#[test]
fn every_arrow_between_crates_is_drawn() {
    let house = House::read();
    let drawn: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let members: BTreeSet<&str> = house.named.keys().map(String::as_str).collect();
    assert_eq!(
        members,
        drawn.keys().copied().collect(),
        "every crate has its line in ARROWS, and every line its crate"
    );
    for (member, named) in &house.named {
        for other in named.iter().filter(|name| members.contains(name.as_str())) {
            assert!(drawn[member.as_str()].contains(&other.as_str()), "new arrow: {member} -> {other}");
        }
    }
}

#[test]
fn reserved_crates_are_named_only_where_they_belong() {
    let house = House::read();
    for (foreign, allowed) in RESERVED {
        let users: BTreeSet<&str> = house
            .named
            .iter()
            .filter(|(_, named)| named.iter().any(|name| name.starts_with(foreign)))
            .map(|(member, _)| member.as_str())
            .collect();
        assert!(!users.is_empty(), "nobody names {foreign}: is this line still needed?");
        for user in users {
            assert!(allowed.contains(&user), "{user} names {foreign}");
        }
    }
}

#[test]
fn what_decides_knows_neither_formats_nor_clocks_nor_networks() {
    let house = House::read();
    for (member, allowed) in PURE {
        for name in &house.named[member] {
            assert!(allowed.contains(&name.as_str()), "{member} names {name}");
        }
        let closure = house.closure(member);
        assert!(closure.contains("model"), "the walk sees what is built in");
        for banned in BANNED {
            let came = closure.iter().find(|name| **name == banned || name.starts_with(&format!("{banned}_")));
            assert_eq!(came, None, "{banned} is built into {member}");
        }
    }
    assert!(house.closure("controller").contains("tokio"), "the walk would see it");
}
