//! Compiles the protos (protox: no protoc needed) and generates the registry of the built-in plans.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[path = "src/text.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the build needs only a part of what the crate offers"
)]
mod text;

#[path = "src/plan"]
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the build needs only a part of what the crate offers"
)]
mod plan {
    pub(crate) mod action;
    mod check;
    mod check_action;
    mod check_guard;
    mod check_own;
    mod check_param;
    mod check_policy;
    mod check_step;
    pub(crate) mod diagnostic;
    pub(crate) mod duration;
    pub(crate) mod form;
    pub(crate) mod limits;
    pub(crate) mod names;
    mod nodes;
    pub(crate) mod parse;
    mod read;
    pub(crate) mod schema;
    pub(crate) mod spec;
    pub(crate) mod suggest;
    mod syntax;
    pub(crate) mod template;
    pub(crate) mod value;
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    compile_plans()?;
    compile_protos()
}

/// Checks `plans/*.toml` and writes them as one static. A mistake in a plan fails the build with the messages of
/// `plan check`.
fn compile_plans() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=plans");
    let mut paths: Vec<PathBuf> = std::fs::read_dir("plans")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    // Directories list in any order; the diagnostics and the static must not.
    paths.sort();
    let mut read = Vec::new();
    for path in &paths {
        // Slashes on every system, so that messages are the same everywhere.
        read.push((path.to_string_lossy().replace('\\', "/"), std::fs::read(path)?));
    }
    let files: Vec<plan::diagnostic::SourceFile<'_>> =
        read.iter().map(|(name, bytes)| plan::diagnostic::SourceFile { name, bytes }).collect();
    match plan::parse::compile(&files) {
        Ok(plans) => {
            let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
            write_plans(&out_dir.join("plans.rs"), &plans)?;
            Ok(())
        }
        Err(diagnostics) => {
            let text = plan::diagnostic::render(&files, &diagnostics, false);
            writeln!(std::io::stderr(), "\n{text}")?;
            std::process::exit(1)
        }
    }
}

fn write_plans(
    path: &Path,
    plans: &[plan::schema::Plan],
) -> Result<(), Box<dyn std::error::Error>> {
    let mut source =
        String::from("/// The plans of `plans/`, sorted by id.\npub static BUILT_IN: &[Plan] = &");
    source.push_str(&list(plans, emit::plan));
    source.push_str(";\n");
    std::fs::write(path, source)?;
    Ok(())
}

fn list<T>(items: &[T], emit: impl Fn(&T) -> String) -> String {
    let mut source = String::from("[");
    for item in items {
        // Writing to a String cannot fail.
        let _ = writeln!(source, "{},", emit(item));
    }
    source.push(']');
    source
}

/// Rust source of each type, as an expression for a static.
mod emit {
    use super::list;
    use super::plan::schema::{
        Action, Arg, Compensation, Guard, Output, Param, Plan, Retry, Step, Traits,
    };
    use super::plan::value::Value;

    fn text(text: &str) -> String {
        format!("Cow::Borrowed({text:?})")
    }

    fn cow<T>(items: &[T], emit: impl Fn(&T) -> String) -> String {
        format!("Cow::Borrowed(&{})", list(items, emit))
    }

    fn option<T>(value: Option<&T>, emit: impl Fn(&T) -> String) -> String {
        value.map_or("None".to_owned(), |value| format!("Some({})", emit(value)))
    }

    /// A variant of a field-less enum, whose derived `Debug` is its name.
    fn variant<T: std::fmt::Debug>(name: &'static str) -> impl Fn(&T) -> String {
        move |value| format!("{name}::{value:?}")
    }

    fn conditions<T: std::fmt::Debug>(items: &[(T, bool)]) -> String {
        cow(items, |(condition, status)| format!("(Condition::{condition:?}, {status})"))
    }

    fn value(value: &Value) -> String {
        match value {
            Value::Str(string) => format!("Value::Str({})", text(string)),
            Value::Int(number) => format!("Value::Int({number})"),
            Value::Bool(truth) => format!("Value::Bool({truth})"),
            Value::DurationMs(ms) => format!("Value::DurationMs({ms})"),
        }
    }

    fn arg(arg: &Arg) -> String {
        match arg {
            Arg::Literal(literal) => format!("Arg::Literal({})", value(literal)),
            Arg::Param(name) => format!("Arg::Param({})", text(name)),
            Arg::Text(parts) => format!("Arg::Text({})", text(parts)),
        }
    }

    fn action(action: &Action) -> String {
        let args = cow(&action.args, |(name, given)| format!("({}, {})", text(name), arg(given)));
        let Traits { capability, risk, idempotent, interruptible } = action.traits;
        format!(
            "Action {{ name: {}, args: {args}, traits: Traits {{ capability: Capability::{capability:?}, \
             risk: Risk::{risk:?}, idempotent: {idempotent}, interruptible: {interruptible} }} }}",
            text(&action.name),
        )
    }

    fn compensation(undo: &Compensation) -> String {
        format!(
            "Compensation {{ action: {}, timeout_ms: {}, expected_ms: {}, sets: {}, retry: {} }}",
            action(&undo.action),
            undo.timeout_ms,
            undo.expected_ms,
            conditions(&undo.sets),
            option(undo.retry.as_ref(), retry),
        )
    }

    fn param(param: &Param) -> String {
        format!(
            "Param {{ name: {}, kind: ValueKind::{:?}, default: {}, one_of: {}, description: {} }}",
            text(&param.name),
            param.kind,
            option(param.default.as_ref(), value),
            cow(&param.one_of, value),
            text(&param.description),
        )
    }

    fn retry(retry: &Retry) -> String {
        format!(
            "Retry {{ max_attempts: {}, on: {}, backoff_ms: {}, backoff_max_ms: {} }}",
            retry.max_attempts,
            cow(&retry.on, variant("ErrorClass")),
            retry.backoff_ms,
            retry.backoff_max_ms,
        )
    }

    fn guard(guard: &Guard) -> String {
        format!(
            "Guard {{ params: {}, conditions: {}, phases: {}, labels: {}, providers: {}, outputs: {} }}",
            cow(&guard.params, |(name, wanted)| format!("({}, {})", text(name), value(wanted))),
            conditions(&guard.conditions),
            cow(&guard.phases, variant("Phase")),
            cow(&guard.labels, |(key, wanted)| format!("({}, {})", text(key), text(wanted))),
            cow(&guard.providers, |name| text(name)),
            cow(&guard.outputs, output),
        )
    }

    fn output(output: &Output) -> String {
        let Output { step, name, value: wanted } = output;
        format!("Output {{ step: {}, name: {}, value: {} }}", text(step), text(name), value(wanted))
    }

    fn step(step: &Step) -> String {
        format!(
            "Step {{ name: {}, role: Role::{:?}, action: {}, timeout_ms: {}, expected_ms: {}, retry: {}, \
             on_unknown: OnUnknown::{:?}, when: {}, until: {}, needs: {}, compensation: {}, sets: {} }}",
            text(&step.name),
            step.role,
            action(&step.action),
            step.timeout_ms,
            step.expected_ms,
            retry(&step.retry),
            step.on_unknown,
            option(step.when.as_ref(), guard),
            option(step.until.as_ref(), guard),
            cow(&step.needs, |name| text(name)),
            option(step.compensation.as_ref(), compensation),
            conditions(&step.sets),
        )
    }

    pub(crate) fn plan(plan: &Plan) -> String {
        format!(
            "Plan {{ id: {}, display_name: {}, description: {}, default_for: {}, destructive: {}, allowed_phases: {}, \
             refused_effective: {}, refused_hint: {}, required_conditions: {}, params: {}, time_limit_ms: {:?}, \
             for_admins: {}, allow_destructive: {}, steps: {}, \
             result: PlanResult {{ phase: {}, conditions: {} }} }}",
            text(&plan.id),
            text(&plan.display_name),
            text(&plan.description),
            option(plan.default_for.as_ref(), variant("RunType")),
            plan.destructive,
            cow(&plan.allowed_phases, variant("Phase")),
            cow(&plan.refused_effective, variant("EffectiveState")),
            option(plan.refused_hint.as_ref(), |hint| text(hint)),
            conditions(&plan.required_conditions),
            cow(&plan.params, param),
            plan.time_limit_ms,
            plan.for_admins,
            plan.allow_destructive,
            cow(&plan.steps, step),
            option(plan.result.phase.as_ref(), variant("Phase")),
            conditions(&plan.result.conditions),
        )
    }
}

/// Generates the gRPC code, the descriptor set that reflection and JSON output read, and the list of methods.
fn compile_protos() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_file("baremetal/v1/baremetal.proto")?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    // Encoded by the compiler: our own options would be lost in the types of prost.
    std::fs::write(out_dir.join("baremetal.bin"), compiler.encode_file_descriptor_set())?;
    std::fs::write(out_dir.join("methods.rs"), methods::source(&compiler.descriptor_pool())?)?;
    let mut config = prost_build::Config::new();
    // Sorted, so that equal requests encode to equal bytes: idempotency compares digests of them.
    config
        .btree_map(["."])
        .service_generator(Box::new(Services))
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Generates clients and servers. Servers send the events of watches as `Encoded`: encoded once for all watchers.
struct Services;

impl prost_build::ServiceGenerator for Services {
    fn generate(&mut self, service: prost_build::Service, code: &mut String) {
        let generator = || {
            tonic_prost_build::configure()
                // Answers undecodable requests with INVALID_ARGUMENT instead of INTERNAL.
                .codec_path("crate::api::codec::Strict")
                // Servers in tests implement only what they need.
                .generate_default_stubs(true)
        };
        let mut served = service.clone();
        for method in &mut served.methods {
            if ["RunEvent", "MachineEvent"].contains(&method.output_type.as_str()) {
                let event = &method.output_type;
                method.output_type = format!("crate::api::codec::Encoded<crate::pb::{event}>");
            }
        }
        generator().build_server(false).service_generator().generate(service, code);
        generator().build_client(false).service_generator().generate(served, code);
    }
}

/// The list of methods, from the option `touches` of each. A method without it, or with one that names a missing
/// field, fails the build.
mod methods {
    use std::fmt::Write as _;

    use protox::prost_reflect::{
        DescriptorPool, DynamicMessage, ExtensionDescriptor, Kind, MessageDescriptor,
        MethodDescriptor, ReflectMessage as _,
    };

    pub(crate) fn source(pool: &DescriptorPool) -> Result<String, String> {
        let touches =
            pool.get_extension_by_name("baremetal.v1.touches").ok_or("no option touches")?;
        let services = pool.services().filter(|service| service.package_name() == "baremetal.v1");
        let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
        let (mut list, mut requests) = (String::new(), String::new());
        for (place, method) in methods.enumerate() {
            let entry =
                entry(&method, &touches).map_err(|why| format!("{}: {why}", method.full_name()))?;
            let request = method.input();
            let has_id = request.get_field_by_name("request_id").is_some();
            let field = if has_id { "Some(&mut self.request_id)" } else { "None" };
            // Writing to a String cannot fail.
            let _ = writeln!(list, "    {entry},");
            let _ = writeln!(
                requests,
                "impl Called for crate::pb::{} {{\n    const METHOD: &'static Method = &METHODS[{place}];\n\n    \
                 fn request_id(&mut self) -> Option<&mut String> {{\n        {field}\n    }}\n}}",
                request.name()
            );
        }
        Ok(format!(
            "/// Every method of the API, in the order of the proto.\npub static METHODS: &[Method] = &[\n{list}];\n{requests}"
        ))
    }

    fn entry(method: &MethodDescriptor, touches: &ExtensionDescriptor) -> Result<String, String> {
        let options = method.options();
        if !options.has_extension(touches) {
            return Err("has no option `touches`".to_owned());
        }
        let value = options.get_extension(touches);
        let touches = value.as_message().ok_or("touches is not a message")?;
        let object = object(touches)?;
        let role = role(touches)?;
        let scoping = scoping(touches)?;
        let id_field = text(touches, "id_field");
        let request = method.input();
        if !id_field.is_empty() && !names_text(&request, &id_field) {
            return Err(format!("{} has no field {id_field}", request.name()));
        }
        let is_one = !id_field.is_empty() && matches!(object.as_str(), "Machine" | "Run");
        if scoping == "Object" && !is_one {
            return Err("is scoped by its object, and names no machine or run".to_owned());
        }
        let mutation = touches
            .get_field_by_name("mutation")
            .and_then(|value| value.as_bool())
            .unwrap_or_default();
        Ok(format!(
            "Method {{ service: {:?}, name: {:?}, path: {:?}, is_mutation: {mutation}, \
             object: ObjectKind::{object}, id_field: {id_field:?}, role: Role::{role}, scoping: Scoping::{scoping}, is_stream: {} }}",
            method.parent_service().name(),
            method.name(),
            format!("/{}/{}", method.parent_service().full_name(), method.name()),
            method.is_server_streaming(),
        ))
    }

    fn text(message: &DynamicMessage, field: &str) -> String {
        let value = message.get_field_by_name(field);
        value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Name of the Rust variant of the kind of object.
    fn object(touches: &DynamicMessage) -> Result<String, String> {
        Ok(variant(touches, "object", "ObjectKind", "OBJECT_KIND_")
            .ok_or("names no kind of object")?)
    }

    /// Name of the Rust variant of the least role.
    fn role(touches: &DynamicMessage) -> Result<String, String> {
        Ok(variant(touches, "role", "Role", "ROLE_").ok_or("names no role that may call it")?)
    }

    /// Name of the Rust variant of what it means to a caller with a scope.
    fn scoping(touches: &DynamicMessage) -> Result<String, String> {
        Ok(variant(touches, "scoping", "Scoping", "SCOPING_")
            .ok_or("does not say how it keeps to a scope")?)
    }

    /// Name of the Rust variant of an enum; `None` for the value that says nothing.
    fn variant(touches: &DynamicMessage, field: &str, kind: &str, prefix: &str) -> Option<String> {
        let number = touches.get_field_by_name(field)?.as_enum_number()?;
        let pool = touches.descriptor().parent_pool().clone();
        let value = pool.get_enum_by_name(&format!("baremetal.v1.{kind}"))?.get_value(number)?;
        let word = value.name().trim_start_matches(prefix).to_lowercase();
        (number != 0).then(|| word[..1].to_uppercase() + &word[1..])
    }

    /// Whether a path leads to a field that holds text.
    fn names_text(message: &MessageDescriptor, path: &str) -> bool {
        let (first, rest) =
            path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let Some(field) = message.get_field_by_name(first) else { return false };
        match (field.kind(), rest) {
            (Kind::Message(inner), Some(rest)) => names_text(&inner, rest),
            (Kind::String, None) => true,
            _ => false,
        }
    }
}
