# COSMETICS00: defect masks (masks) and what changed since the mask in use (meta), per CCD.


use rule check as cosmetics_masks with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "masks", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/masks/masks.json",
    log:
        "<logs>/{test}_ccd{ccd}_masks.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_masks.tsv"
    wildcard_constraints:
        test=P.pattern("cosmetics", "masks"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "masks", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "masks", "runtime_min"),
    params:
        step="cosmetics",
        subtask="masks",
        job=lambda wc: P.job(wc.test, "masks", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "masks", wc.ccd),


use rule check as cosmetics_meta with:
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
        test=P.pattern("cosmetics", "meta"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "meta", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "meta", "runtime_min"),
    params:
        step="cosmetics",
        subtask="meta",
        job=lambda wc: P.job(wc.test, "meta", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "meta", wc.ccd),
