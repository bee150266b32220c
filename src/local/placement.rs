//! Decides whether a task fits on an instance, and gives the reason if not. This module owns the rules; it places nothing
//! itself. Invariant: a resource of a task that has not stopped is never given to another task.

use super::definition::TaskDefinition;
use super::instances::{Instance, InstanceStatus};
use super::need::Need;
use super::remedy;

/// The reason why a task does not fit on an instance.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    /// The reason in the API's terms, such as `RESOURCE:MEMORY`.
    pub(super) reason: String,
    /// An explanation for people.
    pub(super) detail: String,
}

/// A placement constraint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Constraint {
    /// The instance has no other task of the same group.
    DistinctInstance,
    /// All of these terms hold for the instance.
    MemberOf(Vec<Term>),
}

/// A comparison of an attribute, such as `attribute:name == value`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Term {
    /// Name of the attribute.
    name: String,
    /// The value to compare with; `None`: the term asks whether the attribute exists, with any value.
    value: Option<String>,
    /// The result that the comparison must have: true for `==` and `exists`, false for `!=` and `!exists`.
    holds: bool,
}

impl Constraint {
    /// Parses a constraint. Of the expressions of ECS, it knows comparisons of attributes with `==`, `!=`, `exists` and
    /// `!exists`, joined by `and`.
    pub(super) fn parse(kind: &str, expression: Option<&str>) -> Result<Self, String> {
        let expression = match (kind, expression) {
            ("distinctInstance", _) => return Ok(Self::DistinctInstance),
            ("memberOf", Some(expression)) => expression,
            ("memberOf", None) => return Err("A placement constraint memberOf needs an `expression`.".to_owned()),
            _ => return Err(format!("Placement constraint `{kind}` is invalid: use distinctInstance or memberOf.")),
        };
        let term = |text: &str| {
            let words: Vec<&str> = text.split_whitespace().collect();
            let (name, value, holds) = match words[..] {
                [name, "==", value] => (name, Some(value), true),
                [name, "!=", value] => (name, Some(value), false),
                [name, "exists"] => (name, None, true),
                [name, "!exists"] => (name, None, false),
                _ => return None,
            };
            let name = name.strip_prefix("attribute:")?.to_owned();
            Some(Term { name, value: value.map(str::to_owned), holds })
        };
        let terms: Option<Vec<Term>> = expression.split(" and ").map(term).collect();
        terms.map(Self::MemberOf).ok_or_else(|| {
            format!("The expression `{expression}` cannot be evaluated here: use `attribute:name == value`, joined by `and`.")
        })
    }

    /// Checks one instance. `is_taken`: the instance has a task of the same group.
    pub(super) fn allows(&self, instance: &Instance, is_taken: bool) -> Result<(), Misfit> {
        let holds = |term: &Term| {
            let mut actual = instance.attributes.iter().filter(|attribute| attribute.name == term.name);
            actual.any(|attribute| term.value.is_none() || attribute.value == term.value) == term.holds
        };
        match self {
            Self::DistinctInstance if is_taken => Err(Misfit {
                reason: "DistinctInstance placement constraint unsatisfied.".to_owned(),
                detail: "the container instance has a task of this group: stop that task, or remove the constraint"
                    .to_owned(),
            }),
            Self::MemberOf(terms) => match terms.iter().find(|term| !holds(term)) {
                Some(term) => Err(Misfit {
                    reason: "MemberOf placement constraint unsatisfied.".to_owned(),
                    detail: format!(
                        "the container instance's attribute {} has another value: set it in ECS_INSTANCE_ATTRIBUTES of the agent, or \
                         change the constraint",
                        term.name
                    ),
                }),
                None => Ok(()),
            },
            Self::DistinctInstance => Ok(()),
        }
    }
}

/// Checks that the instance has the CPU architecture that the definition asks for.
pub(super) fn is_built_for(instance: &Instance, definition: &TaskDefinition) -> Result<(), Misfit> {
    let platform = definition.runtime_platform.as_ref();
    let Some(wanted) = platform.and_then(|platform| platform.cpu_architecture.as_deref()) else { return Ok(()) };
    let actual = instance.attributes.iter().find(|attribute| attribute.name == "ecs.cpu-architecture");
    match actual.and_then(|attribute| attribute.value.as_deref()) {
        Some(actual) if !actual.eq_ignore_ascii_case(wanted) => Err(Misfit {
            reason: "ATTRIBUTE".to_owned(),
            detail: format!(
                "the container instance has the CPU architecture {actual}, not {wanted}: change `runtimePlatform`, and use images for \
                 {actual}"
            ),
        }),
        _ => Ok(()),
    }
}

/// Ids of the instance's GPUs that no task has.
pub(super) fn free_gpus(instance: &Instance, held: &Need) -> Vec<String> {
    instance.resources.gpus.difference(&held.gpus).cloned().collect()
}

/// Checks one instance. `held` is the need of the tasks on it, `required` the names of the attributes that it must have.
pub(super) fn fits(instance: &Instance, held: &Need, need: &Need, required: &[String]) -> Result<(), Misfit> {
    let misfit = |reason: &str, detail: String| Err(Misfit { reason: reason.to_owned(), detail });
    if instance.status != InstanceStatus::Active {
        let status = instance.status.as_str();
        let remedy = match instance.status {
            InstanceStatus::Inactive => "it was deregistered; restart its agent",
            _ => "set it to ACTIVE (update-container-instances-state)",
        };
        let detail = format!("the container instance is {status}: {remedy}");
        return misfit("INACTIVE", detail);
    }
    if !instance.connected() {
        return misfit(
            "AGENT",
            "the agent of the container instance is not connected: start it, or look at its log".to_owned(),
        );
    }
    let missing: Vec<_> = required.iter().filter(|name| !instance.has_attribute(name)).map(String::as_str).collect();
    if !missing.is_empty() {
        let remedies: Vec<_> = missing.iter().map(|name| format!("{name} ({})", remedy::for_attribute(name))).collect();
        return misfit("ATTRIBUTE", format!("the container instance lacks {}", remedies.join(", ")));
    }
    for (name, needed, has, used) in [
        ("CPU", need.cpu, instance.resources.cpu, held.cpu),
        ("MEMORY", need.memory, instance.resources.memory, held.memory),
    ] {
        let free = has.saturating_sub(used);
        if needed > free {
            let unit = if name == "CPU" { "CPU units" } else { "MiB" };
            let remedy = remedy::for_resource(name, has);
            let detail = format!("{needed} {unit} needed, {free} of {has} free: {remedy}");
            return misfit(&format!("RESOURCE:{name}"), detail);
        }
    }
    let (needed, free) = (need.gpu_count, free_gpus(instance, held).len());
    if needed > free {
        let has = instance.resources.gpus.len();
        let remedy = remedy::for_resource("GPU", has as u64);
        let gpus = if needed == 1 { "GPU" } else { "GPUs" };
        return misfit("RESOURCE:GPU", format!("{needed} {gpus} needed, {free} of {has} free: {remedy}"));
    }
    let taken = [(&need.tcp, &held.tcp, &instance.resources.tcp), (&need.udp, &held.udp, &instance.resources.udp)]
        .into_iter()
        .find_map(|(needed, held, reserved)| needed.iter().find(|port| held.contains(port) || reserved.contains(port)));
    match taken {
        Some(port) => {
            misfit("RESOURCE:PORTS", format!("host port {port} is taken: {}", remedy::for_resource("PORTS", 0)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instances::Attribute;
    use serde_json::json;
    use std::collections::BTreeSet;

    #[test]
    fn constraints_keep_a_task_from_an_instance() {
        let attribute = |name: &str, value: &str| Attribute { name: name.to_owned(), value: Some(value.to_owned()) };
        let mut instance = Instance::example();
        instance.attributes = vec![attribute("rack", "r1"), attribute("ecs.cpu-architecture", "x86_64")];
        let allows = |kind: &str, expression: &str, is_taken: bool| {
            Constraint::parse(kind, Some(expression)).unwrap().allows(&instance, is_taken).is_ok()
        };
        for (expression, wanted) in [
            ("attribute:rack == r1", true),
            ("attribute:rack == r9", false),
            ("attribute:rack != r9 and attribute:rack exists", true),
            ("attribute:rack exists and attribute:zone exists", false),
            ("attribute:zone !exists", true),
        ] {
            assert_eq!(allows("memberOf", expression, true), wanted, "{expression}");
        }
        assert_eq!([false, true].map(|taken| allows("distinctInstance", "", taken)), [true, false]);
        for (kind, expression, part) in [
            ("memberOf", Some("task:group == x"), "cannot be evaluated here"),
            ("memberOf", Some("attribute:a =~ b.*"), "cannot be evaluated here"),
            ("memberOf", None, "needs an `expression`"),
            ("spread", None, "use distinctInstance or memberOf"),
        ] {
            let text = Constraint::parse(kind, expression).unwrap_err();
            assert!(text.contains(part), "{text}");
        }
        for (architecture, fits) in [("X86_64", true), ("ARM64", false)] {
            let definition = TaskDefinition::example(&json!({"runtimePlatform": {"cpuArchitecture": architecture}}));
            assert_eq!(is_built_for(&instance, &definition).is_ok(), fits, "{architecture}");
        }
    }

    #[test]
    fn an_instance_is_passed_over_for_a_reason() {
        let (need, none) = (Need::from_definition(&TaskDefinition::example(&json!({}))), Need::default());
        let instance = || {
            let mut instance = Instance::example();
            instance.connect(1);
            instance
        };
        assert_eq!(fits(&instance(), &none, &need, &[]), Ok(()));
        let reason = |change: &dyn Fn(&mut Instance), held: &Need, required: &[String]| {
            let mut instance = instance();
            change(&mut instance);
            fits(&instance, held, &need, required).unwrap_err().reason
        };
        assert_eq!(reason(&|i| i.status = InstanceStatus::Draining, &none, &[]), "INACTIVE");
        assert_eq!(reason(&|i| i.disconnect(1), &none, &[]), "AGENT");
        assert_eq!(reason(&|_| (), &none, &["ecs.capability.efs".to_owned()]), "ATTRIBUTE");
        assert_eq!(reason(&|i| i.resources.cpu = 99, &none, &[]), "RESOURCE:CPU");
        assert_eq!(
            reason(&|i| i.resources.memory = 95, &Need { memory: 64, ..Need::default() }, &[]),
            "RESOURCE:MEMORY"
        );
        assert_eq!(reason(&|_| (), &Need { tcp: BTreeSet::from([8080]), ..Need::default() }, &[]), "RESOURCE:PORTS");
        assert_eq!(reason(&|i| i.resources.tcp = BTreeSet::from([8080]), &none, &[]), "RESOURCE:PORTS");
        let gpus = Need { gpu_count: 1, ..Need::default() };
        let misfit = fits(&instance(), &none, &gpus, &[]).unwrap_err();
        assert_eq!(misfit.reason, "RESOURCE:GPU");
        assert!(misfit.detail.contains("1 GPU needed, 0 of 0 free: the agent needs the list of GPUs"), "{misfit:?}");
    }
}
