//! What the environment and the tools of the clouds say of object stores: endpoints, regions, credentials.
//!
//! The variables and files are those of the clouds' own tools. Where nothing gives credentials, requests go without: for buckets that are open to
//! everybody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use trainlock_fetch::{CredentialProcess, ObjectSettings, Profile};

/// The variables that mean the same to crate `object_store`, by the name that it has for them.
const S3: &[(&str, &str)] = &[
    ("AWS_ACCESS_KEY_ID", "aws_access_key_id"),
    ("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key"),
    ("AWS_SESSION_TOKEN", "aws_session_token"),
    ("AWS_REGION", "aws_region"),
    ("AWS_ENDPOINT_URL", "aws_endpoint_url"),
    ("AWS_ENDPOINT_URL_S3", "aws_endpoint_url_s3"),
    ("AWS_REQUEST_PAYER", "aws_request_payer"),
    ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "aws_virtual_hosted_style_request"),
    ("AWS_SKIP_SIGNATURE", "aws_skip_signature"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "aws_web_identity_token_file"),
    ("AWS_ROLE_ARN", "aws_role_arn"),
    ("AWS_ROLE_SESSION_NAME", "aws_role_session_name"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "aws_container_credentials_relative_uri"),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "aws_container_credentials_full_uri"),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "aws_container_authorization_token_file"),
];

const GS: &[(&str, &str)] = &[
    ("STORAGE_EMULATOR_HOST", "google_base_url"),
    ("GOOGLE_SERVICE_ACCOUNT", "google_service_account"),
    ("GOOGLE_SERVICE_ACCOUNT_KEY", "google_service_account_key"),
    ("GOOGLE_APPLICATION_CREDENTIALS", "google_application_credentials"),
    ("GOOGLE_SKIP_SIGNATURE", "google_skip_signature"),
];

const AZ: &[(&str, &str)] = &[
    ("AZURE_STORAGE_ACCOUNT", "azure_storage_account_name"),
    ("AZURE_STORAGE_KEY", "azure_storage_account_key"),
    ("AZURE_STORAGE_SAS_TOKEN", "azure_storage_sas_token"),
    ("AZURE_STORAGE_ENDPOINT", "azure_storage_endpoint"),
    ("AZURE_TENANT_ID", "azure_tenant_id"),
    ("AZURE_CLIENT_ID", "azure_client_id"),
    ("AZURE_CLIENT_SECRET", "azure_client_secret"),
    ("AZURE_FEDERATED_TOKEN_FILE", "azure_federated_token_file"),
    ("AZURE_SKIP_SIGNATURE", "azure_skip_signature"),
];

/// What stands in the environment, by the variable's name; none for what is not set or empty.
type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// All that is said of object stores.
pub(crate) fn settings(variable: Variable<'_>, home: Option<&Path>) -> ObjectSettings {
    let mut settings = ObjectSettings {
        s3: taken(S3, variable),
        gs: taken(GS, variable),
        az: taken(AZ, variable),
        ..Default::default()
    };
    settings.profile = s3(&mut settings.s3, variable, home);
    gs(&mut settings.gs, home);
    az(&mut settings.az, variable);
    settings
}

fn taken(names: &[(&str, &str)], variable: Variable<'_>) -> BTreeMap<String, String> {
    names.iter().filter_map(|(name, key)| Some(((*key).to_owned(), variable(name)?))).collect()
}

/// Who made the machine: the clouds' own give credentials to what runs on them.
fn is_machine_of(maker: &str) -> bool {
    let vendor = fs_err::read_to_string("/sys/class/dmi/id/sys_vendor").unwrap_or_default();
    vendor.trim().starts_with(maker)
}

/// Adds what the profile says; how else its credentials are had, or why they can't be.
fn s3(options: &mut BTreeMap<String, String>, variable: Variable<'_>, home: Option<&Path>) -> Option<Profile> {
    let path = |name: &str, own: &str| match variable(name) {
        Some(path) => match (path.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => Some(home.join(rest)),
            _ => Some(PathBuf::from(path)),
        },
        None => Some(home?.join(".aws").join(own)),
    };
    let read = |path: &Option<PathBuf>| path.as_ref().and_then(|path| fs_err::read_to_string(path).ok());
    let paths = (path("AWS_CONFIG_FILE", "config"), path("AWS_SHARED_CREDENTIALS_FILE", "credentials"));
    let (config, credentials) = (read(&paths.0).unwrap_or_default(), read(&paths.1).unwrap_or_default());
    let chosen = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"].into_iter().find_map(|by| Some((by, variable(by)?)));
    let name = chosen.as_ref().map_or("default", |(_, name)| name);
    let section = if name == "default" { name.to_owned() } else { format!("profile {name}") };
    let (mut profile, keys) = (of_section(&config, &section), of_section(&credentials, name));
    let said_in = |key: &str| {
        let path = if keys.contains_key(key) { &paths.1 } else { &paths.0 };
        path.clone().unwrap_or_default()
    };
    profile.extend(keys.clone());
    if let Some(services) = profile.get("services") {
        let of_services = of_section(&config, &format!("services {services}"));
        profile.extend(of_services.into_iter().filter(|(key, _)| key.starts_with("s3.")));
    }
    if let Some(region) = variable("AWS_DEFAULT_REGION").or_else(|| profile.get("region").cloned()) {
        options.entry("aws_region".to_owned()).or_insert(region);
    }
    if !options.contains_key("aws_endpoint_url") && !options.contains_key("aws_endpoint_url_s3") {
        let endpoint = profile.get("s3.endpoint_url").or_else(|| profile.get("endpoint_url"));
        options.extend(endpoint.map(|url| ("aws_endpoint_url".to_owned(), url.clone())));
    }
    let is_known = |options: &BTreeMap<String, String>| {
        ["aws_access_key_id", "aws_web_identity_token_file", "aws_skip_signature"]
            .iter()
            .any(|key| options.contains_key(*key))
            || options.keys().any(|key| key.starts_with("aws_container_credentials"))
    };
    if is_known(options) {
        return None;
    }
    let there = profiles(&config, &credentials);
    if let Some((by, name)) = chosen.as_ref().filter(|(_, name)| name != "default" && !there.contains(name)) {
        let files: Vec<String> =
            [&paths.0, &paths.1].into_iter().flatten().map(|path| path.display().to_string()).collect();
        let hint = match there.is_empty() {
            true => "neither holds a profile".to_owned(),
            false => format!("they hold `{}`", there.join("`, `")),
        };
        let why = format!("{by} names the profile `{name}`, which is neither in {}", files.join(" nor in "));
        return Some(Profile::Unusable { why, hint });
    }
    // A role is another identity than the one whose keys may stand beside it.
    if profile.contains_key("role_arn") {
        if !profile.contains_key("web_identity_token_file") {
            return Some(unusable(name, "role_arn", &said_in("role_arn")));
        }
        for key in ["role_arn", "web_identity_token_file", "role_session_name"] {
            options.extend(profile.get(key).map(|value| (format!("aws_{key}"), value.clone())));
        }
        return None;
    }
    for key in ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"] {
        options.extend(profile.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    if is_known(options) {
        return None;
    }
    if let Some(command) = profile.get("credential_process") {
        let said_by = format!("the profile `{name}` in {}", said_in("credential_process").display());
        return Some(Profile::Process(CredentialProcess { command: command.clone(), said_by }));
    }
    let other = ["sso_session", "sso_start_url", "login_session"].into_iter().find(|key| profile.contains_key(*key));
    if let Some(key) = other {
        return Some(unusable(name, key, &said_in(key)));
    }
    // The metadata service of a machine answers nowhere else, and asking for it takes a while to fail.
    if !is_machine_of("Amazon") {
        options.insert("aws_skip_signature".to_owned(), "true".to_owned());
    }
    None
}

/// A profile whose credentials only Amazon's own tools can get.
fn unusable(name: &str, key: &str, file: &Path) -> Profile {
    Profile::Unusable {
        why: format!(
            "the profile `{name}` in {} gets its credentials by `{key}`, which trainlock does not follow",
            file.display()
        ),
        hint: format!(
            "`eval \"$(aws configure export-credentials --profile {name} --format env)\"` puts them into the environment; for a bucket that is open to everybody set AWS_SKIP_SIGNATURE=true"
        ),
    }
}

/// The names of all profiles.
fn profiles(config: &str, credentials: &str) -> Vec<String> {
    let sections = |text: &str| -> Vec<String> {
        let header = |line: &str| Some(line.trim().strip_prefix('[')?.split(']').next()?.trim().to_owned());
        text.lines().filter_map(header).collect()
    };
    let of_config = sections(config).into_iter().filter_map(|name| match name.split_once(char::is_whitespace) {
        Some(("profile", name)) => Some(name.trim().to_owned()),
        None if name == "default" => Some(name),
        _ => None,
    });
    let mut names: Vec<String> = of_config.chain(sections(credentials)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A section of a file of ~/.aws: its keys, with those of a nested table behind its name and a dot.
fn of_section(text: &str, section: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let (mut within, mut table) = (false, None);
    for line in text.lines() {
        let content = line.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = content.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            (within, table) = (name.split_whitespace().eq(section.split_whitespace()), None);
            continue;
        }
        let Some((key, value)) = content.split_once('=').filter(|_| within) else { continue };
        let (key, value) = (key.trim().to_lowercase(), value.trim().to_owned());
        match (line.starts_with([' ', '\t']), &table) {
            (true, Some(table)) => found.insert(format!("{table}.{key}"), value),
            _ if value.is_empty() => {
                table = Some(key);
                None
            }
            _ => {
                table = None;
                found.insert(key, value)
            }
        };
    }
    found
}

fn gs(options: &mut BTreeMap<String, String>, home: Option<&Path>) {
    // Its own tools take a host without a scheme as well.
    if let Some(host) = options.get_mut("google_base_url").filter(|host| !host.contains("://")) {
        host.insert_str(0, "http://");
    }
    let default = home.map(|home| home.join(".config/gcloud/application_default_credentials.json"));
    let is_known = options.keys().any(|key| key != "google_base_url");
    match default.filter(|file| !is_known && file.is_file()) {
        Some(file) => {
            options.insert("google_application_credentials".to_owned(), file.to_string_lossy().into_owned());
        }
        None if !is_known && !is_machine_of("Google") => {
            options.insert("google_skip_signature".to_owned(), "true".to_owned());
        }
        None => {}
    }
}

fn az(options: &mut BTreeMap<String, String>, variable: Variable<'_>) {
    for pair in variable("AZURE_STORAGE_CONNECTION_STRING").unwrap_or_default().split(';') {
        let Some((name, value)) = pair.split_once('=') else { continue };
        let key = match name.trim() {
            "AccountName" => "azure_storage_account_name",
            "AccountKey" => "azure_storage_account_key",
            "BlobEndpoint" => "azure_storage_endpoint",
            "SharedAccessSignature" => "azure_storage_sas_token",
            _ => continue,
        };
        options.entry(key.to_owned()).or_insert_with(|| value.trim().to_owned());
    }
    let known = ["azure_storage_account_key", "azure_storage_sas_token", "azure_client_id", "azure_skip_signature"];
    if !known.iter().any(|key| options.contains_key(*key)) && !is_machine_of("Microsoft") {
        options.insert("azure_skip_signature".to_owned(), "true".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)], home: Option<&Path>) -> ObjectSettings {
        settings(&|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()), home)
    }

    #[test]
    fn variables_go_before_profiles() {
        let home = tempfile::tempdir().unwrap();
        fs_err::create_dir(home.path().join(".aws")).unwrap();
        let config = "[default]\nregion = eu-west-1\n[profile lab]\nregion=lab-1\nservices = lab\n[services lab]\nssm =\n  endpoint_url = http://no\ns3 =\n  endpoint_url = http://s3.lab\n[profile sso]\nsso_session = x\n";
        fs_err::write(home.path().join(".aws/config"), config).unwrap();
        let credentials = "# keys\n[default]\naws_access_key_id = A\naws_secret_access_key = S\n\n[lab]\naws_access_key_id=LA\naws_secret_access_key=LS\naws_session_token=LT\n";
        fs_err::write(home.path().join(".aws/credentials"), credentials).unwrap();
        let s3 = |variables: &[(&str, &str)]| with(variables, Some(home.path()));
        let of = |settings: &ObjectSettings, key: &str| settings.s3.get(key).cloned().unwrap_or_default();
        let default = s3(&[]);
        assert_eq!((of(&default, "aws_access_key_id"), of(&default, "aws_region")), ("A".into(), "eu-west-1".into()));
        let lab = s3(&[("AWS_PROFILE", "lab")]);
        assert_eq!(
            (of(&lab, "aws_session_token"), of(&lab, "aws_endpoint_url")),
            ("LT".into(), "http://s3.lab".into())
        );
        let own = s3(&[
            ("AWS_PROFILE", "lab"),
            ("AWS_ACCESS_KEY_ID", "E"),
            ("AWS_SECRET_ACCESS_KEY", "ES"),
            ("AWS_REGION", "r"),
        ]);
        assert_eq!((of(&own, "aws_access_key_id"), of(&own, "aws_secret_access_key")), ("E".into(), "ES".into()));
        assert_eq!((of(&own, "aws_session_token"), of(&own, "aws_region")), (String::new(), "r".into()));
    }

    #[test]
    fn profiles_whose_credentials_are_elsewhere() {
        let home = tempfile::tempdir().unwrap();
        fs_err::create_dir(home.path().join(".aws")).unwrap();
        let config = "[default]\n[profile sso]\nsso_session = x\n[sso-session x]\n[profile old]\nsso_start_url = x\n[profile role]\nrole_arn = arn:x\nsource_profile = keys\naws_access_key_id = A\n[profile web]\nrole_arn = arn:x\nweb_identity_token_file = /t\n[profile run]\ncredential_process = /bin/get \"a b\"\n[profile both]\ncredential_process = /bin/get\n";
        let credentials = "[keys]\naws_access_key_id = A\naws_secret_access_key = S\n[both]\naws_access_key_id = A\naws_secret_access_key = S\n";
        fs_err::write(home.path().join(".aws/config"), config).unwrap();
        fs_err::write(home.path().join(".aws/credentials"), credentials).unwrap();
        let s3 =
            |profile: &str, variable: &str| with(&[("AWS_PROFILE", profile), (variable, "true")], Some(home.path()));
        for (profile, key) in [("sso", "sso_session"), ("old", "sso_start_url"), ("role", "role_arn")] {
            let Some(Profile::Unusable { why, hint }) = s3(profile, "X").profile else { panic!("{profile}") };
            assert!(
                why.contains(key) && why.contains(&format!("`{profile}` in {}/.aws/config", home.path().display())),
                "{why}"
            );
            assert!(hint.contains(&format!("export-credentials --profile {profile} --format env")), "{hint}");
            // What the environment says goes before it.
            assert_eq!(
                (s3(profile, "AWS_ACCESS_KEY_ID").profile, s3(profile, "AWS_SKIP_SIGNATURE").profile),
                (None, None)
            );
        }
        let Some(Profile::Unusable { why, hint }) = s3("none", "X").profile else { panic!("there is none") };
        assert!(why.contains("AWS_PROFILE") && why.contains("`none`") && why.contains(".aws/credentials"), "{why}");
        assert!(hint.contains("`both`, `default`, `keys`, `old`, `role`, `run`, `sso`, `web`"), "{hint}");
        let Some(Profile::Process(process)) = s3("run", "X").profile else { panic!("it is one") };
        assert_eq!(process.command, "/bin/get \"a b\"");
        assert!(process.said_by.contains("`run`") && process.said_by.contains(".aws/config"), "{}", process.said_by);
        assert_eq!((s3("both", "X").profile, &*s3("both", "X").s3["aws_access_key_id"]), (None, "A"));
        assert_eq!((s3("web", "X").profile, &*s3("web", "X").s3["aws_web_identity_token_file"]), (None, "/t"));
        assert_eq!(s3("default", "X").profile, None);
    }

    #[test]
    fn without_credentials_it_goes_without() {
        let none = with(&[("STORAGE_EMULATOR_HOST", "localhost:1"), ("AZURE_STORAGE_ACCOUNT", "a")], None);
        // On a cloud's own machine, the machine has some.
        if !is_machine_of("Amazon") && !is_machine_of("Google") && !is_machine_of("Microsoft") {
            assert_eq!(none.s3["aws_skip_signature"], "true");
            assert_eq!(none.gs["google_skip_signature"], "true");
            assert_eq!(none.az["azure_skip_signature"], "true");
        }
        assert_eq!(none.gs["google_base_url"], "http://localhost:1");
        let connected =
            "DefaultEndpointsProtocol=http;AccountName=dev;AccountKey=a2V5PT0=;BlobEndpoint=http://127.0.0.1:1/dev;";
        let az = with(&[("AZURE_STORAGE_CONNECTION_STRING", connected)], None).az;
        assert_eq!(
            (&*az["azure_storage_account_key"], &*az["azure_storage_endpoint"]),
            ("a2V5PT0=", "http://127.0.0.1:1/dev")
        );
        assert!(!az.contains_key("azure_skip_signature"));
    }
}
