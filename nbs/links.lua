-- nbdev makes links of names in backticks, in the comments of a signature too, where nobody can follow them: there the name is enough
function CodeBlock(block)
  local text = block.text:gsub("%[(`[^`\n]+`)%]%(https?://[^%s)]+%)", "%1")
  block.text = text
  return block
end

-- a page that includes a whole file has its title from both, and shows it once
function Pandoc(doc)
  local title = pandoc.utils.stringify(doc.meta.title or "")
  doc.blocks = doc.blocks:filter(function(b) return not (b.t == "Header" and b.level == 1 and pandoc.utils.stringify(b) == title) end)
  return doc
end
