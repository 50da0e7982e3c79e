//! Specs that stay as they are, but for single fields.

use kube::core::Rule;

/// A rule that fails when one of `fields` of the spec is set, unset or changed; `message` says so.
pub(crate) fn rule(fields: &[&str], message: &str) -> Rule {
    let same = |field: &&str| {
        format!(
            "(has(self.spec.{field}) ? has(oldSelf.spec.{field}) && self.spec.{field} == oldSelf.spec.{field} : !has(oldSelf.spec.{field}))"
        )
    };
    let all: Vec<String> = fields.iter().map(same).collect();
    Rule::new(all.join(" && "))
        .message(message)
        .field_path(".spec")
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;

    use crate::{Backup, Restore};

    /// Every field of the spec but `cancel` is named in the rule that keeps it.
    fn check<K: CustomResourceExt>() {
        let crd = K::crd();
        let schema = crd.spec.versions[0].schema.clone().unwrap();
        let schema = schema.open_api_v3_schema.unwrap();
        let spec = &schema.properties.as_ref().unwrap()["spec"];
        let rules = schema.x_kubernetes_validations.as_ref().unwrap();
        for field in spec.properties.as_ref().unwrap().keys() {
            let kept = format!("self.spec.{field} == oldSelf.spec.{field}");
            let found = rules.iter().any(|rule| rule.rule.contains(&kept));
            assert_eq!(found, field != "cancel", "{field}");
        }
    }

    #[test]
    fn no_field_of_a_run_changes_but_cancel() {
        check::<Backup>();
        check::<Restore>();
    }
}
