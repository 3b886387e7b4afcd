# bash completion for llmtk. The words come from the programs' own --help; what was asked once is remembered, because
# the programs that load LibTorch take half a second to answer.
declare -gA _llmtk_answers

_llmtk_complete() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  local dash= key line
  [[ $current == -* ]] && dash=-
  local -a before=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
  key="${COMP_WORDS[0]} ${before[*]} $dash"
  if [[ -z ${_llmtk_answers[$key]+set} ]]; then
    _llmtk_answers[$key]=$("${COMP_WORDS[0]}" __complete "${before[@]}" "$dash" 2>/dev/null)
  fi
  COMPREPLY=()
  while IFS= read -r line; do
    [[ -n $line && $line == "$current"* ]] && COMPREPLY+=("$line")
  done <<<"${_llmtk_answers[$key]}"
  ((${#COMPREPLY[@]} || COMP_CWORD == 1)) && return
  [[ $current == -* ]] && return
  compopt -o filenames 2>/dev/null
  # A command's own argument is most often a config; an option's value may be any file.
  if [[ $previous != -* ]]; then
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(
      compgen -f -- "$current" | while IFS= read -r line; do
        [[ -d $line || $line == *.yaml || $line == *.yml ]] && printf '%s\n' "$line"
      done
    )
  fi
  ((${#COMPREPLY[@]})) || while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$current")
}
complete -F _llmtk_complete llmtk
