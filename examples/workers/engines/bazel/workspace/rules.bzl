"""Rules whose actions write directories."""

def _tree(ctx):
    object = ctx.actions.declare_file(ctx.label.name + ".o")
    directory = ctx.actions.declare_directory(ctx.label.name + ".d")
    source = ctx.files.srcs[0]
    ctx.actions.run_shell(
        outputs = [object, directory],
        inputs = ctx.files.srcs,
        command = "/usr/bin/cc -c -o $1 $2 && mkdir -p $3/sub/empty && echo one > $3/sub/one && ln -s one $3/sub/link",
        arguments = [object.path, source.path, directory.path],
    )
    return [DefaultInfo(files = depset([object, directory]))]

tree = rule(implementation = _tree, attrs = {"srcs": attr.label_list(allow_files = True)})

def _many_files(ctx):
    directory = ctx.actions.declare_directory(ctx.label.name + ".d")
    ctx.actions.run_shell(
        outputs = [directory],
        command = "mkdir -p $1 && cd $1 && seq -f file%g " + str(ctx.attr.count) + " | xargs touch",
        arguments = [directory.path],
    )
    return [DefaultInfo(files = depset([directory]))]

many_files = rule(implementation = _many_files, attrs = {"count": attr.int()})
