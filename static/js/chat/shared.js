// A shared conversation: only copying.
import { addCopyButtons } from "./copy.js";

addCopyButtons(document);
