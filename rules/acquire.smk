# The gate: blocks until the EXP-LOG shows the test complete, then lists its exposures in manifest.json.
#
# A checkpoint that nobody asks with .get(): no file name depends on the data, so the preview is complete
# before any data arrive. It takes no core and is never submitted to a cluster.


checkpoint acquire:
    output:
        manifest="<results>/{test}/manifest.json",
    log:
        "<logs>/{test}_acquire.log",
    benchmark:
        "<benchmarks>/{test}_acquire.tsv"
    wildcard_constraints:
        test=P.pattern(),
    priority: lambda wc: P.gate_priority(wc.test)
    retries: 0
    localrule: True
    threads: 0
    resources:
        expgate=1,
    params:
        look=lambda wc: P.look(wc.test),
    shell:
        "{PY}.acquire --plan {PLANS:q}/{wildcards.test}.json --look {params.look:q} --into {output.manifest:q} > {log:q} 2>&1"


# Inputs and folders only: snakemake -c2 --configfile SESSION.yaml ingest
rule ingest:
    input:
        expand("<results>/{test}/manifest.json", test=P.tests),
    localrule: True
