# Completion for pullprint(1), which knows itself what may stand next. Nothing that is typed or answered is run here.
function __pullprint_complete
    set -l words (commandline -opc)
    set -e words[1]
    set -l current (commandline -ct)
    set -l option (string match -r -- '^--[^=]*=' $current)
    for line in (command pullprint __complete words $words "$current" </dev/null 2>/dev/null)
        if test "$line" = \tfiles
            __fish_complete_path (string replace -- "$option" '' $current) | string replace -r '^' -- "$option"
        else
            printf '%s\n' "$option$line"
        end
    end
end
complete -c pullprint -f -k -a '(__pullprint_complete)'
