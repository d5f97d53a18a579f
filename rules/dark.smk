# DARK01: master dark, dark current and hot pixels (meta), per CCD.


use rule check as dark_meta with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "meta", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/meta/meta.json",
    log:
        "<logs>/{test}_ccd{ccd}_meta.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_meta.tsv"
    wildcard_constraints:
        test=P.pattern("dark", "meta"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "meta", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "meta", "runtime_min"),
    params:
        step="dark",
        subtask="meta",
        job=lambda wc: P.job(wc.test, "meta", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "meta", wc.ccd),
