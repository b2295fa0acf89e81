// Files that were picked or dropped, each with its path in the folder.

// The largest number of files that is looked at: whoever drops a home folder by mistake shall not wait for it.
const most = 2000;

export function picked(input) {
  return [...input.files].map((file) => ({ file, name: plain(file.webkitRelativePath || file.name) }));
}

export async function dropped(transfer) {
  // The entries must be taken before the first pause: afterwards the browser has emptied the list.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return found;
}

async function walk(entry, found) {
  if (found.length > most) return;
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push({ file, name: plain(entry.fullPath.replace(/^\//, "")) });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
    if (!some.length) return;
    for (const one of some) await walk(one, found);
  }
}

// File systems of some machines write accents as two characters; then a name would not be found again from another.
function plain(name) {
  return name.normalize("NFC");
}
