//! Errors with a place, rendered as rustc renders its own.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use trainlock_types::{Diagnostic, masked};

/// A diagnostic as text, with colour or without.
pub(crate) fn render(diagnostic: &Diagnostic, color: bool) -> String {
    let source = &diagnostic.source;
    let path = shown(&source.path);
    // Addresses may stand there with what they had better not.
    let (text, label, message) = (masked(&source.text), masked(&diagnostic.label), masked(&diagnostic.message));
    let help = diagnostic.help.as_deref().map(masked);
    let mut snippet = Snippet::source(&text).path(path.as_str()).fold(true);
    snippet = snippet.annotation(AnnotationKind::Primary.span(diagnostic.span.clone()).label(&label));
    for (span, label) in &diagnostic.related {
        snippet = snippet.annotation(AnnotationKind::Context.span(span.clone()).label(label));
    }
    let mut group: Group<'_> = Level::ERROR.primary_title(&message).element(snippet);
    if let Some(help) = &help {
        group = group.element(Level::HELP.message(help));
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}

/// A file as people know it: relative to the folder they are in, where it is below that.
fn shown(path: &std::path::Path) -> String {
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|h| path.strip_prefix(h).ok().map(std::path::Path::to_path_buf));
    relative.unwrap_or_else(|| path.to_owned()).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use trainlock_types::SourceText;

    #[test]
    fn the_place_the_label_and_the_help() {
        let text = "[steps.a]\ninpust = [\"x\"]\noutputs = [\"y\"]\n";
        let source = Arc::new(SourceText { path: "train.toml".into(), text: text.into() });
        let diagnostic = Diagnostic {
            source,
            span: 10..16,
            message: "unknown key `inpust`".into(),
            label: "not a key of a step".into(),
            help: Some("did you mean `inputs`?".into()),
            related: vec![(25..32, "the outputs".into())],
        };
        insta::assert_snapshot!(render(&diagnostic, false), @r#"
        error: unknown key `inpust`
         --> train.toml:2:1
          |
        2 | inpust = ["x"]
          | ^^^^^^ not a key of a step
        3 | outputs = ["y"]
          | ------- the outputs
          |
          = help: did you mean `inputs`?
        "#);
    }
}
