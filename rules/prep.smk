# Prepared images, written where the session lists `prep`: a product on request, not an intermediate.
#
# Analysis sub-tasks stream the same images in memory, so nothing depends on this rule.


use rule check as prep with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "prep", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/prep/prep.json",
    log:
        "<logs>/{test}_ccd{ccd}_prep.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_prep.tsv"
    wildcard_constraints:
        test=P.pattern(subtask="prep"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "prep", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "prep", "runtime_min"),
    params:
        step="prep",
        subtask="prep",
        job=lambda wc: P.job(wc.test, "prep", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "prep", wc.ccd),
