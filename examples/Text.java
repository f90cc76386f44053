import com.sun.jna.Function;
import com.sun.jna.Memory;
import com.sun.jna.NativeLibrary;
import com.sun.jna.Pointer;
import java.util.Arrays;
import java.util.List;

/**
 * Writes text from Java, by JNA, with the C sources of {@code steprnn package BUNDLE --as c --out c}:
 *
 * <pre>
 * cc -O2 -ffp-contract=off -shared -fPIC -o libmodel.so c/steprnn.c c/model.c
 * javac -cp jna.jar -d . examples/Text.java
 * java -cp jna.jar:. -Djna.library.path=. Text PROMPT LENGTH [SEED [TEMPERATURE]]
 * </pre>
 *
 * A seed gives the text that it gives in Python. Without one it is greedy.
 */
public final class Text {
    private static final NativeLibrary C = NativeLibrary.getInstance("model");

    public static void main(String[] given) {
        if (given.length < 2) {
            System.err.println("usage: Text PROMPT LENGTH [SEED [TEMPERATURE]]");
            System.exit(2);
        }
        try {
            long seed = given.length > 2 ? Long.parseUnsignedLong(given[2]) : 0;
            double temperature = given.length > 3 ? Double.parseDouble(given[3]) : given.length > 2 ? 1 : 0;
            System.out.println(text(given[0], Integer.parseInt(given[1]), seed, temperature));
        } catch (IllegalArgumentException error) {
            System.err.println(error.getMessage());
            System.exit(1);
        }
    }

    static String text(String prompt, int length, long seed, double temperature) {
        Pointer program = C.getGlobalVariableAddress("model_program");
        SizeT bytes = new SizeT(program.getInt(8)); // the third word
        SizeT size = size("steprnn_arena", program, bytes);
        Memory stream = room(size("steprnn_size"));
        Memory arena = room(size);
        checked(call("steprnn_open").invokeInt(new Object[] {stream, program, bytes, arena, size}));

        int tokens = size("steprnn_output_words", stream).intValue();
        Memory settings = room(new SizeT(40)); // temperature, top_p, min_p, repeat_penalty, top_k, repeat_last_n
        settings.write(0, new double[] {temperature, 1, 0, 1}, 0, 4);
        SizeT needed = size("steprnn_sampler_bytes", tokens, 0);
        Memory sampler = room(size("steprnn_sampler_size"));
        Memory memory = room(needed);
        Object[] begin = {sampler, settings, seed, tokens, memory, needed};
        checked(call("steprnn_sampler_open").invokeInt(begin));

        Pointer words = C.getGlobalVariableAddress("model_vocabulary");
        List<String> vocabulary = Arrays.asList(words.getStringArray(0, tokens, "UTF-8"));
        for (int character : prompt.codePoints().toArray()) {
            int token = vocabulary.indexOf(Character.toString(character));
            if (token < 0) {
                throw new IllegalArgumentException(Character.toString(character) + " is not in the vocabulary");
            }
            Memory one = room(new SizeT(4));
            one.setInt(0, token);
            checked(call("steprnn_read").invokeInt(new Object[] {stream, one, new SizeT(1)}));
        }

        Memory written = room(new SizeT(4L * length));
        Memory at = room(new SizeT(8));
        at.setPointer(0, written);
        Object[] rest = {stream, sampler, new SizeT(length), call("steprnn_keep"), at};
        checked(call("steprnn_generate").invokeInt(rest));
        StringBuilder text = new StringBuilder(prompt);
        for (int token : written.getIntArray(0, length)) {
            text.append(vocabulary.get(token));
        }
        return text.toString();
    }

    /** C's size_t, as wide as a pointer. */
    public static final class SizeT extends com.sun.jna.IntegerType {
        private static final long serialVersionUID = 1;

        public SizeT() {
            this(0);
        }

        public SizeT(long value) {
            super(com.sun.jna.Native.SIZE_T_SIZE, value, true);
        }
    }

    private static Function call(String name) {
        return C.getFunction(name);
    }

    private static SizeT size(String name, Object... given) {
        return (SizeT) call(name).invoke(SizeT.class, given);
    }

    /** Memory of zeros, aligned as C wants it. */
    private static Memory room(SizeT bytes) {
        Memory memory = new Memory(bytes.longValue() + 8);
        memory.clear();
        return memory;
    }

    private static void checked(int error) {
        if (error != 0) {
            throw new IllegalArgumentException(call("steprnn_error").invokeString(new Object[] {error}, false));
        }
    }
}
