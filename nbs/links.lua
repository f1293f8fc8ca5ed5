-- nbdev makes links of names in backticks, in the comments of a signature too, where nobody can follow them: there the name is enough
function CodeBlock(block)
  local text = block.text:gsub("%[(`[^`\n]+`)%]%(https?://[^%s)]+%)", "%1")
  block.text = text
  return block
end
