# FLAT01, FLAT02, FLAT_STB: stacks of each level (indivflats), master flats, mask per CCD; lamp (stability) for the
# block. FLATFLUX00: brightness of the source (meta) for the block.


use rule check as flat_indivflats with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "indivflats", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/indivflats/indivflats.json",
    log:
        "<logs>/{test}_ccd{ccd}_indivflats.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_indivflats.tsv"
    wildcard_constraints:
        test=P.pattern("flat", "indivflats"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "indivflats", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "indivflats", "runtime_min"),
    params:
        step="flat",
        subtask="indivflats",
        job=lambda wc: P.job(wc.test, "indivflats", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "indivflats", wc.ccd),


use rule check as flat_masterflat with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "masterflat", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/masterflat/masterflat.json",
    log:
        "<logs>/{test}_ccd{ccd}_masterflat.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_masterflat.tsv"
    wildcard_constraints:
        test=P.pattern("flat", "masterflat"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "masterflat", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "masterflat", "runtime_min"),
    params:
        step="flat",
        subtask="masterflat",
        job=lambda wc: P.job(wc.test, "masterflat", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "masterflat", wc.ccd),


use rule check as flat_prmask with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "prmask", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/prmask/prmask.json",
    log:
        "<logs>/{test}_ccd{ccd}_prmask.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_prmask.tsv"
    wildcard_constraints:
        test=P.pattern("flat", "prmask"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "prmask", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "prmask", "runtime_min"),
    params:
        step="flat",
        subtask="prmask",
        job=lambda wc: P.job(wc.test, "prmask", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "prmask", wc.ccd),


use rule hk as flat_stability with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "stability", None),
    output:
        "<results>/{test}/block/stability/stability.json",
    log:
        "<logs>/{test}_stability.log",
    benchmark:
        "<benchmarks>/{test}_stability.tsv"
    wildcard_constraints:
        test=P.pattern("flat", "stability"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "stability", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "stability", "runtime_min"),
    params:
        step="flat",
        subtask="stability",
        job=lambda wc: P.job(wc.test, "stability"),
        attempt=lambda wc: P.attempt(wc.test, "stability"),


use rule hk as flat_meta with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "meta", None),
    output:
        "<results>/{test}/block/meta/meta.json",
    log:
        "<logs>/{test}_meta.log",
    benchmark:
        "<benchmarks>/{test}_meta.tsv"
    wildcard_constraints:
        test=P.pattern("flat", "meta"),
    priority: lambda wc: P.priority(wc.test)
    resources:
        mem_mb=lambda wc: P.resource(wc.test, "meta", "mem_mb"),
        runtime=lambda wc: P.resource(wc.test, "meta", "runtime_min"),
    params:
        step="flat",
        subtask="meta",
        job=lambda wc: P.job(wc.test, "meta"),
        attempt=lambda wc: P.attempt(wc.test, "meta"),
